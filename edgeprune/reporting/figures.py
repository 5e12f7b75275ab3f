"""The figures of a run, as a paper prints them: one or two columns wide, readable in grey and by the colour-blind.

`draw` makes matplotlib figures from `Results`, `encode` turns one into PDF, SVG or PNG. No pyplot, so no global state
and no display; no dates inside, so that equal results give equal files. Each figure is a function of its own, in
`plot_speed`, `plot_counts`, `plot_size` and `plot_methods`; start with `plot_speed.speedup`, which is the point
of a run.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from edgeprune.reporting import plot_counts, plot_methods, plot_size, plot_speed
from edgeprune.reporting.methods import fitting
from edgeprune.reporting.plot_style import styled
from edgeprune.reporting.results import Results

FORMATS = ("pdf", "svg", "png")


def draw(results: Results) -> dict[str, Figure]:
    """The figures that the results allow, by name.

    One that would be empty is left out: no pair finished, nothing counted, no network built. So are those that do not
    fit (`methods.fitting`).
    """
    makers = {
        "pareto": plot_methods.pareto,
        "methods": plot_methods.by_method,
        "speedup": plot_speed.speedup,
        "latency": plot_speed.latency,
        "instructions": plot_counts.instructions,
        "cycles": plot_counts.cycles,
        "staircase": plot_counts.staircase,
        "accuracy": plot_size.accuracy,
        "compression": plot_size.compression,
    }
    with styled():
        made = {name: makers[name](results) for name in fitting(results, makers)}
    return {name: figure for name, figure in made.items() if figure is not None}


def encode(figure: Figure, form: str) -> bytes:
    """A figure as a file of one of `FORMATS`; fonts are embedded, and no date is written."""
    dates: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=form, metadata=dates[form])
    return buffer.getvalue()
