"""What the figures have in common: widths, colours, markers, line styles, axes, intervals, legends.

Start with `STYLE`, matplotlib's settings for all of them; `styled` applies it to a block and no further.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.typing import LineStyleType

from edgeprune.reporting import wording
from edgeprune.schema import NetworkKey

N = TypeVar("N")
V = TypeVar("V")
Recipe = tuple[str, int]

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches, as in most two-column papers

# Okabe & Ito, "Color Universal Design" (2008), ordered so that neighbours also differ in grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
# plain dashes are the line y = x
LINES: tuple[LineStyleType, ...] = ("-", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 7.5,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "legend.fontsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.1,
        "lines.markersize": 4.5,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "edgeprune",
        "figure.dpi": 100,
        "savefig.dpi": 300,
    }
)
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0)
_FINE_TICKS = tuple(tenth / 10 for tenth in range(1, 41))


@contextmanager
def styled() -> Iterator[None]:
    """The style inside the block only; matplotlib's settings are as before afterwards."""
    settings: dict[Any, Any] = dict(STYLE)
    with matplotlib.rc_context(settings):
        yield


def log_axes(axes: Axes, low: float, high: float, values: Sequence[float]) -> None:
    """Logarithmic axes, x from `low` to `high` and y around `values`, ticks written as plain factors."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(values) / 1.08, max(values) * 1.08)
    _factor_ticks(axes.xaxis, *axes.get_xlim())
    _factor_ticks(axes.yaxis, *axes.get_ylim())


def factor_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis from `low` to `high`, ticks written as plain factors."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _factor_ticks(axes.xaxis, low, high)


def _factor_ticks(axis: Axis, start: float, end: float) -> None:
    ticks = [tick for tick in (_FINE_TICKS if end / start < 2.2 else _TICKS) if start <= tick <= end]
    step = math.ceil(len(ticks) / 8)
    # of many ticks every second one, and always that of no change
    first = ticks.index(1.0) % step if 1.0 in ticks else 0
    axis.set_major_locator(FixedLocator(ticks[first::step]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def interval(
    axes: Axes, at: float, low: float | None, high: float | None, colour: str, along: Literal["x", "y"] = "y"
) -> None:
    """A 95 % interval as a bar with caps, along an axis and `at` a place of the other; nothing where there is none."""
    if low is None or high is None:
        return
    middle, half = (low + high) / 2, (high - low) / 2
    look: Mapping[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 0.9, "capsize": 2, "zorder": 4}
    if along == "x":
        axes.errorbar(middle, at, xerr=half, **look)
    else:
        axes.errorbar(at, middle, yerr=half, **look)


def panels(models: Sequence[str], legend_rows: int) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a model, at most four in a row, and room for a legend below."""
    columns = min(4, len(models))
    rows = math.ceil(len(models) / columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = Figure(figsize=(width, 0.34 + 0.16 * legend_rows + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    every = [axes for line in grid for axes in line]
    for axes in every[len(models) :]:
        axes.set_visible(False)
    return figure, every[: len(models)]


def two_columns(left: list[Line2D], right: list[Line2D]) -> list[Line2D]:
    """Legend entries for two columns, which matplotlib fills one after the other: the shorter is padded.

    Without any on the right those on the left take both columns.
    """
    if not right:
        return left
    height = max(len(left), len(right))

    def padded(entries: list[Line2D]) -> list[Line2D]:
        return entries + [Line2D([], [], linestyle="none", label=" ") for _ in range(height - len(entries))]

    return padded(left) + padded(right)


def recipe_of(key: NetworkKey) -> Recipe:
    """What a line of a figure stands for: the method and the seed that its points share."""
    return key.method, key.seed


def line_styles(recipes: Iterable[Recipe]) -> dict[Recipe, LineStyleType]:
    """A line style for each recipe of a figure, the same in all its panels and in its legend.

    >>> line_styles([("l2", 0), ("l1", 0), ("l2", 0)])
    {('l1', 0): '-', ('l2', 0): ':'}
    """
    return assigned(sorted(recipes), LINES)


def recipe_handles(styles: Mapping[Recipe, LineStyleType]) -> list[Line2D]:
    """Legend entries of line styles: methods, with their seeds where these differ; none if there is one recipe only."""
    if len(styles) < 2:
        return []
    several = len({seed for _, seed in styles}) > 1
    names = wording.short_methods(method for method, _ in styles)
    return [
        Line2D([], [], color="#333333", linestyle=style, label=names[method] + f", seed {seed}" * several)
        for (method, seed), style in styles.items()
    ]


def assigned(names: Iterable[N], values: Sequence[V]) -> dict[N, V]:
    """Each name with a value of its own, in order; values come round again when they run out."""
    return {name: values[number % len(values)] for number, name in enumerate(dict.fromkeys(names))}
