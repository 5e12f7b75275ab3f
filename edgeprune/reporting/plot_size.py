"""The figures about size: accuracy against what was pruned, and compression by filters and by parameters.

Both tell filters apart from parameters, as figures 3 and 4 of "Investigating the Not-So-Obvious Effects of Structured
Pruning" (Tessier et al., 2022) do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from edgeprune.reporting import wording
from edgeprune.reporting.plot_style import (
    COLOURS,
    MARKERS,
    ONE_COLUMN,
    Recipe,
    assigned,
    line_styles,
    log_axes,
    panels,
    recipe_handles,
    recipe_of,
    two_columns,
)
from edgeprune.reporting.results import Results
from edgeprune.schema import Network

BY_FILTERS, BY_PARAMETERS = "#0072B2", "#D55E00"
LEAST_SPAN = 4.0  # percentage points that an accuracy axis shows at the least

Curve = tuple[Network | None, list[tuple[Network, Network]]]


def accuracy(results: Results) -> Figure | None:
    """Accuracy against the pruned share of filters (blue) and of parameters (red), a panel a model.

    Source: Tessier et al. (2022), figure 3.
    """
    curves = _curves(results)
    if not curves:
        return None
    styles = _styles(curves)
    shares = [
        Line2D([], [], color=BY_FILTERS, marker="o", label="share of filters"),
        Line2D([], [], color=BY_PARAMETERS, marker="s", label="share of parameters, once shrunk"),
    ]
    legend = two_columns(shares, recipe_handles(styles))
    figure, every = panels(list(curves), legend_rows=math.ceil(len(legend) / 2))
    for axes, model in zip(every, curves, strict=True):
        for recipe, (dense, points) in curves[model].items():
            style = styles[recipe]
            start = [(0.0, dense.accuracy)] if dense else []
            by_filters = start + [(masked.pruned_filters / masked.filters, masked.accuracy) for masked, _ in points]
            axes.plot(*_percentages(by_filters), color=BY_FILTERS, marker="o", linestyle=style)
            if dense:
                by_parameters = start + [(1 - shrunk.params / dense.params, shrunk.accuracy) for _, shrunk in points]
                axes.plot(*_percentages(by_parameters), color=BY_PARAMETERS, marker="s", linestyle=style)
        axes.set_title(wording.model_name(model))
        axes.set_xlabel("pruned (%)")
        axes.set_xlim(-3, 103)
        axes.margins(y=0.12)
        _widen(axes, LEAST_SPAN)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    every[0].set_ylabel("accuracy (%)")
    figure.legend(handles=legend, loc="outside lower center", ncols=2)
    return figure


def compression(results: Results) -> Figure | None:
    """Compression by parameters, once shrunk, against compression by filters, with the line y = x.

    Source: Tessier et al. (2022), figure 4; compression = 100 / (100 - rate in percent).
    """
    built = _curves(results)
    curves = {
        model: {
            recipe: [
                (masked.filters / (masked.filters - masked.pruned_filters), dense.params / shrunk.params)
                for masked, shrunk in points
                if masked.filters > masked.pruned_filters and shrunk.params  # all gone is no point of a plot
            ]
            for recipe, (dense, points) in lines.items()
            if dense
        }
        for model, lines in built.items()
    }
    every = [point for lines in curves.values() for points in lines.values() for point in points]
    if not every:
        return None
    colours, markers, styles = assigned(curves, COLOURS), assigned(curves, MARKERS), _styles(built)
    names = [
        Line2D([], [], color=colours[model], marker=markers[model], label=wording.model_name(model)) for model in curves
    ]
    names.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="y = x"))
    legend = two_columns(names, recipe_handles(styles))
    figure = Figure(figsize=(ONE_COLUMN, 2.84 + 0.16 * math.ceil(len(legend) / 2)), layout="constrained")
    axes = figure.add_subplot()
    for model, lines in curves.items():
        for recipe, points in lines.items():
            xs, ys = zip(*sorted([(1.0, 1.0), *points]), strict=True)
            axes.plot(xs, ys, color=colours[model], marker=markers[model], linestyle=styles[recipe],
                      markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    right, top = (max([1.5, *values]) for values in zip(*every, strict=True))
    log_axes(axes, 0.94, right * 1.12, [1.0, top])
    axes.plot([0.9, right * 1.12], [0.9, right * 1.12], color="#555555", linestyle="--", linewidth=0.9, zorder=1)
    axes.set_xlabel("compression by pruned filters")
    axes.set_ylabel("compression by parameters, once shrunk")
    figure.legend(handles=legend, loc="outside lower center", ncols=2)
    return figure


def _widen(axes: Axes, least: float) -> None:
    """Show at least so many points of accuracy, so that one image more or less does not look like a cliff."""
    low, high = axes.get_ylim()
    if high - low < least:
        top = min(100.0 + 0.05 * least, (low + high + least) / 2)
        axes.set_ylim(top - least, top)


def _curves(results: Results) -> dict[str, dict[Recipe, Curve]]:
    """By model, then by method and seed: the dense network, and (masked, shrunk) networks by rising ratio."""
    built = {network.key.network_id: network for network in results.networks}
    curves: dict[str, dict[Recipe, Curve]] = {}
    for network in sorted(results.networks, key=lambda one: one.key.pruning_ratio or 0.0):
        key = network.key
        masked = built.get(key.model_copy(update={"variant": "masked"}).network_id)
        if key.variant != "shrunk" or masked is None or not masked.filters:
            continue
        lines = curves.setdefault(key.model, {})
        lines.setdefault(recipe_of(key), (results.dense(key), []))[1].append((masked, network))
    order = list(dict.fromkeys(network.key.model for network in results.networks))
    return {model: dict(sorted(curves[model].items())) for model in order if model in curves}


def _styles(curves: Mapping[str, Mapping[Recipe, Curve]]) -> dict[Recipe, LineStyleType]:
    """Line styles over the recipes of all models, so that both figures and their legends agree."""
    return line_styles(recipe for lines in curves.values() for recipe in lines)


def _percentages(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * x for x, _ in points], [100 * y for _, y in points]
