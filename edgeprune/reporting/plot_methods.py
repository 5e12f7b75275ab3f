"""The figures that compare methods: accuracy against what is gone, and what was promised against what is real.

A method is a marker: of ten shapes, each solid, hollow and half-tone, so that thirty can be told apart in grey too.
Start with `pareto`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from edgeprune.reporting import wording
from edgeprune.reporting.methods import MethodRow, by_model, front, method_rows, settings_of
from edgeprune.reporting.plot_style import MARKERS, TWO_COLUMNS, assigned, factor_axis, interval
from edgeprune.reporting.results import PairResult, Results

DEEPEST = 12.0  # percentage points below the best accuracy that are shown; what lies deeper is drawn at the foot
DARK, LIGHT, EDGE = "#0072B2", "#E69F00", "#222222"
MARKS: tuple[Mapping[str, Any], ...] = tuple(
    {"marker": marker, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}
    for face, edge, width in ((DARK, "white", 0.3), ("white", EDGE, 0.8), (LIGHT, EDGE, 0.5))
    for marker in MARKERS
)
MOST_SETTINGS = 3  # of more, the first ones are drawn, to leave panels a width; the tables have all
_LEGEND_COLUMNS, _LEGEND_LETTERS = 4, 120
_ROW_INCHES = 0.13
_PANEL_INCHES = 2.05

Share = Callable[[MethodRow], float | None]


def pareto(results: Results) -> Figure | None:
    """Accuracy against the share of filters, parameters, MACs and latency that is gone, with the front of each.

    A row of panels for each model; one panel of latency for each setting. Methods are markers, the same in all.
    """
    rows = method_rows(results)
    if not rows:
        return None
    models = by_model(rows)
    shares = _shares(rows, results)
    across = 2 if len(shares) == 4 else 3
    down = math.ceil(len(shares) / across)
    marks = assigned([row.key.method for row in rows], MARKS)
    names = wording.short_methods(marks)
    legend = _legend(marks, names)
    columns = max(1, min(_LEGEND_COLUMNS, _LEGEND_LETTERS // max(len(str(entry.get_label())) for entry in legend)))
    # one free place is enough for the legend of one model, if its entries are short
    inside = len(models) == 1 and across * down > len(shares) and columns == _LEGEND_COLUMNS
    below = 0.1 if inside else 0.15 * math.ceil(len(legend) / columns)
    figure = Figure(figsize=(TWO_COLUMNS, 0.2 + below + _PANEL_INCHES * down * len(models)), layout="constrained")
    grid = figure.subplots(down * len(models), across, squeeze=False)
    for place, ((model, _), mine) in enumerate(models.items()):
        every = [axes for line in grid[place * down : (place + 1) * down] for axes in line]
        for axes in every[len(shares) :]:
            axes.set_axis_off()
        for axes, (label, share) in zip(every, shares.items(), strict=False):
            _panel(axes, mine, share, marks, names)
            axes.set_xlabel(label)
        for axes in every[::across]:
            axes.set_ylabel(f"{wording.model_name(model)}\naccuracy (%)" if len(models) > 1 else "accuracy (%)")
    if inside:
        grid[-1][-1].legend(handles=legend, loc="center", ncols=2, handlelength=1.2, fontsize=6, columnspacing=1.0)
    else:
        figure.legend(handles=legend, loc="outside lower center", ncols=columns, handlelength=1.2)
    return figure


def by_method(results: Results) -> Figure | None:
    """Speed-up promised by MACs and real, a line a recipe and a panel a model and setting; logarithmic."""
    rows = [row for row in method_rows(results) if row.pairs]
    if not rows:
        return None
    labels = wording.setting_labels(cell.key for cell in results.timed)
    models, settings = by_model(rows), settings_of(rows)[:MOST_SETTINGS]
    heights = [len(mine) for mine in models.values()]
    size = (TWO_COLUMNS, 0.75 + sum(_ROW_INCHES * number + 0.3 for number in heights))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(models), len(settings), squeeze=False, sharey="row", sharex=True, height_ratios=heights)
    for (model, mine), line in zip(models.items(), grid, strict=True):
        for axes, one in zip(line, settings, strict=True):
            _speedups(axes, [row.pairs.get(one) for row in mine])
            axes.set_title(", ".join(([wording.model_name(model[0])] if len(models) > 1 else []) + [labels[one]]))
        _name_rows(line, mine)
    ends = [value for row in rows for pair in row.pairs.values() for value in _values(pair)]
    for axes in grid[-1]:
        factor_axis(axes, min(ends) / 1.06, max(ends) * 1.06)
        axes.set_xlabel("speed-up")
    figure.legend(handles=_SPEEDUP_LEGEND, loc="outside lower center", ncols=3)
    return figure


def _shares(rows: Sequence[MethodRow], results: Results) -> dict[str, Share]:
    """What is gone, by the words of its axis."""
    labels = wording.setting_labels((cell.key for cell in results.timed), shared_runtime=False)
    shares: dict[str, Share] = {
        "filters or structures removed (%)": lambda row: row.filters_gone,
        "parameters gone, once shrunk (%)": lambda row: row.parameters_gone,
        "MACs gone, once shrunk (%)": lambda row: row.macs_gone,
    }
    for one in settings_of(rows)[:MOST_SETTINGS]:
        where = f", {labels[one]}" if labels.get(one) else ""
        shares[f"latency gone{where} (%)"] = partial(_latency_gone, one)
    return shares


def _latency_gone(setting: wording.Setting, row: MethodRow) -> float | None:
    return row.latency_gone.get(setting)


def _panel(
    axes: Axes,
    rows: Sequence[MethodRow],
    share: Share,
    marks: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> None:
    """One share against accuracy; the front as steps, its methods by name."""
    dense = 100 * (rows[0].accuracy + rows[0].lost)
    shown = [(row, 100 * gone, 100 * row.accuracy) for row in rows if (gone := share(row)) is not None]
    points = [(0.0, dense), *((x, y) for _, x, y in shown)]
    best = front(points)
    top = max(y for _, y in points)
    foot = max(min(y for _, y in points) - 0.5, top - DEEPEST)
    # up to a point of the front its accuracy can be had
    axes.plot(*zip(*(points[one] for one in best), strict=True), color="#555555", linewidth=0.8, drawstyle="steps-pre",
              zorder=1)  # fmt: skip
    axes.axhline(dense, color="#999999", linestyle=":", linewidth=0.8, zorder=0.9)
    named: list[tuple[float, float]] = []
    for number, (row, x, y) in enumerate(shown, start=1):
        ahead = number in best
        axes.plot(x, max(y, foot), **marks[row.key.method], linestyle="none", markersize=5 if ahead else 3.8,
                  alpha=0.45 if y < foot else 1.0, clip_on=False, zorder=4 if ahead else 3)  # fmt: skip
        if ahead and y >= foot and all(abs(x - one) > 30 or abs(y - other) > 1 for one, other in named):
            named.append((x, y))
            side = {"xytext": (-3, 3), "ha": "right"} if x > 70 else {"xytext": (3, 3)}
            name = axes.annotate(
                names[row.key.method], (x, y), textcoords="offset points", fontsize=5.5, zorder=5, **side
            )
            name.set_in_layout(False)  # a long one may reach into the next panel, and takes no panel's width
    axes.plot(0.0, dense, **_DENSE, clip_on=False)
    axes.set_ylim(foot, top + 0.08 * (top - foot))
    axes.set_xlim(min(-2.0, *(x for x, _ in points)), 100)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _legend(marks: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Line2D]:
    entries = [Line2D([], [], label="dense", **_DENSE)]
    entries += [
        Line2D([], [], linestyle="none", label=names[method], markersize=4.5, **mark) for method, mark in marks.items()
    ]
    entries.append(Line2D([], [], color="#555555", linewidth=0.8, label="front: nothing beats it"))
    return entries


def _speedups(axes: Axes, pairs: Sequence[PairResult | None]) -> None:
    axes.grid(axis="y", visible=False)
    axes.axvline(1.0, color="#999999", linewidth=0.7, zorder=1)
    for place, pair in enumerate(pairs):
        if pair is None:
            continue
        if math.isfinite(pair.theoretical_filters):
            axes.plot(pair.theoretical_filters, place, **_BY_FILTERS)
        if pair.theoretical_macs is not None:
            axes.plot(pair.theoretical_macs, place, **_PROMISED)
        if pair.ratio is None:
            continue
        axes.plot([pair.theoretical_macs or pair.ratio.ratio, pair.ratio.ratio], [place, place], color="#bbbbbb",
                  linewidth=1.0, zorder=2)  # fmt: skip
        axes.plot(pair.ratio.ratio, place, **_REAL)
        interval(axes, place, pair.ratio.ci_low, pair.ratio.ci_high, DARK, along="x")


def _name_rows(line: Sequence[Axes], rows: Sequence[MethodRow]) -> None:
    """Recipes from top to bottom at the left, every other method on a ground of its own."""
    names = wording.short_methods(row.key.method for row in rows)
    keys = [row.key.model_copy(update={"method": names[row.key.method]}) for row in rows]
    line[0].set_ylim(len(rows) - 0.4, -0.6)
    line[0].yaxis.set_major_locator(FixedLocator(range(len(rows))))
    line[0].set_yticklabels([wording.recipe_label(key, keys) for key in keys], fontsize=6)
    methods = list(dict.fromkeys(key.method for key in keys))
    for axes in line:
        axes.tick_params(axis="y", length=0)
        for place, key in enumerate(keys):
            if methods.index(key.method) % 2:
                axes.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", linewidth=0, zorder=0)


def _values(pair: PairResult) -> list[float]:
    """What the axis has to show of a pair."""
    real = [pair.ratio.ratio] if pair.ratio else []
    promised = [pair.theoretical_macs] if pair.theoretical_macs is not None else []
    return [value for value in (1.0, pair.theoretical_filters, *real, *promised) if math.isfinite(value)]


_DENSE: Mapping[str, Any] = {"marker": "*", "color": "black", "markersize": 7, "linestyle": "none", "zorder": 4}
_PROMISED: Mapping[str, Any] = {
    "marker": "D", "markerfacecolor": "white", "markeredgecolor": EDGE, "markersize": 3.6, "markeredgewidth": 0.8,
    "linestyle": "none", "zorder": 3,
}  # fmt: skip
_BY_FILTERS: Mapping[str, Any] = {
    "marker": "|", "color": "#777777", "markersize": 5.5, "markeredgewidth": 1.1, "linestyle": "none", "zorder": 2.5,
}  # fmt: skip
_REAL: Mapping[str, Any] = {"marker": "o", "color": DARK, "markersize": 4.0, "linestyle": "none", "zorder": 4}
_SPEEDUP_LEGEND = [
    Line2D([], [], label="promised by filters or structures", **_BY_FILTERS),
    Line2D([], [], label="promised by MACs, dense / shrunk", **_PROMISED),
    Line2D([], [], label="real, masked / shrunk, with 95 % interval", **_REAL),
]
