"""The figures about time: promised against real speed-up, and latency of dense, masked and shrunk networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType

from edgeprune.reporting import wording
from edgeprune.reporting.plot_style import (
    COLOURS,
    MARKERS,
    ONE_COLUMN,
    TWO_COLUMNS,
    Recipe,
    assigned,
    interval,
    line_styles,
    log_axes,
    recipe_handles,
    recipe_of,
    two_columns,
)
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import NetworkKey

VARIANT_FILLS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dense": {"facecolor": "#8c8c8c"},
        "masked": {"facecolor": "#9ecae9", "hatch": "////"},
        "shrunk": {"facecolor": "#0072B2"},
    }
)


def speedup(results: Results) -> Figure | None:
    """Real speed-up against the one promised by MACs, both logarithmic, with 95 % intervals and the line y = x."""
    pairs = [pair for pair in results.pairs if pair.ratio is not None and pair.theoretical_macs is not None]
    if not pairs:
        return None
    # in the order of all cells, so that a runtime keeps its colour when some of its pairs failed
    labels = wording.setting_labels(cell.key for cell in results.timed)
    shown = {wording.setting(pair.key) for pair in pairs}
    colours = assigned([label for one, label in labels.items() if one in shown], COLOURS)
    markers = assigned([pair.key.network.model for pair in pairs], MARKERS)
    styles = line_styles(recipe_of(pair.key.network) for pair in pairs)
    legend = _speedup_legend(colours, markers, styles)
    figure = Figure(figsize=(ONE_COLUMN, 2.8 + 0.08 * len(legend)), layout="constrained")
    axes = figure.add_subplot()
    aside = _set_apart(list(colours))
    for (model, by, setting), line in _trajectories(pairs).items():
        label = labels[setting]
        colour, marker = colours[label], markers[model]
        xs = [(pair.theoretical_macs or 1.0) * aside[label] for pair in line]
        ratios = [pair.ratio for pair in line if pair.ratio is not None]
        axes.plot(xs, [ratio.ratio for ratio in ratios], color=colour, linestyle=styles[by], linewidth=0.8, alpha=0.6,
                  zorder=2)  # fmt: skip
        for x, ratio in zip(xs, ratios, strict=True):
            axes.plot(x, ratio.ratio, marker=marker, color=colour, markeredgecolor="white", markeredgewidth=0.4,
                      markersize=4.2, linestyle="none", zorder=3)  # fmt: skip
            interval(axes, x, ratio.ci_low, ratio.ci_high, colour)
    promised = [pair.theoretical_macs for pair in pairs if pair.theoretical_macs is not None]
    real = [value for pair in pairs if pair.ratio for value in (pair.ratio.ratio, *_clipped_interval(pair))]
    log_axes(axes, min([1.0, *promised]) / 1.08, max([1.5, *promised]) * 1.15, [*real, 1.0])
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="#555555", linestyle="--", linewidth=0.9, zorder=1)
    axes.axhline(1.0, color="#999999", linewidth=0.7, zorder=1)
    axes.set_xlabel("speed-up promised by MACs, dense / shrunk")
    axes.set_ylabel("real speed-up, masked / shrunk")
    figure.legend(handles=legend, loc="outside lower center", ncols=2, handlelength=1.6)
    return figure


def latency(results: Results) -> Figure | None:
    """Latency of dense, masked and shrunk networks, a panel a model and setting, bars with 95 % intervals."""
    cells = [cell for cell in results.cells if cell.latency is not None]
    if not cells:
        return None
    labels = wording.setting_labels(cell.key for cell in results.timed)
    present = {wording.setting(cell.key) for cell in cells}
    labels = {one: label for one, label in labels.items() if one in present}
    models = list(dict.fromkeys(cell.key.network.model for cell in cells))
    groups = max(
        len({_place(cell.key.network) for cell in cells if cell.key.network.model == model}) for model in models
    )
    width = ONE_COLUMN if len(labels) == 1 and groups <= 5 else TWO_COLUMNS
    figure = Figure(figsize=(width, 0.55 + 1.55 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), len(labels), squeeze=False)
    keys = [cell.key.network for cell in cells]
    for row, model in enumerate(models):
        tops = _latency_tops([cell for cell in cells if cell.key.network.model == model])
        for column, (setting, label) in enumerate(labels.items()):
            axes = grid[row][column]
            mine = [
                cell for cell in cells
                if cell.key.network.model == model and wording.setting(cell.key) == setting
            ]  # fmt: skip
            _latency_panel(axes, mine, keys)
            axes.set_ylim(0, tops.get(setting, 1.0))
            if row == 0:
                axes.set_title(label)
            if column == 0:
                axes.set_ylabel(f"{wording.model_name(model)}\nlatency (ms)")
            if row == len(models) - 1:
                axes.set_xlabel("pruning ratio")
    shown = [name for name in VARIANT_FILLS if any(cell.key.network.variant == name for cell in cells)]
    patches = [Patch(label=name, edgecolor="#333333", linewidth=0.4, **VARIANT_FILLS[name]) for name in shown]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, handlelength=1.6)
    return figure


def _speedup_legend(
    colours: Mapping[str, str], markers: Mapping[str, str], styles: Mapping[Recipe, LineStyleType]
) -> list[Line2D]:
    """Settings and the line y = x on the left, models and recipes on the right."""
    left = [Line2D([], [], color=colour, linewidth=2.5, label=label) for label, colour in colours.items()]
    left.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="all of it real (y = x)"))
    right = [
        Line2D([], [], color="#333333", marker=marker, linestyle="none", label=wording.model_name(model))
        for model, marker in markers.items()
    ]
    return two_columns(left, [*right, *recipe_handles(styles)])


def _trajectories(pairs: Sequence[PairResult]) -> dict[tuple[str, Recipe, wording.Setting], list[PairResult]]:
    """Pairs of one model, recipe and setting, by rising ratio: the points that a line joins."""
    lines: dict[tuple[str, Recipe, wording.Setting], list[PairResult]] = {}
    for pair in sorted(pairs, key=lambda one: one.pruning_ratio):
        key = pair.key.network
        lines.setdefault((key.model, recipe_of(key), wording.setting(pair.key)), []).append(pair)
    return lines


def _set_apart(labels: Sequence[str]) -> dict[str, float]:
    """Factors, at most 3 % from 1, that keep the points of one network on several settings from hiding each other."""
    step = 0.06 / max(3, len(labels))
    return {label: math.exp(step * (place - (len(labels) - 1) / 2)) for place, label in enumerate(labels)}


def _clipped_interval(pair: PairResult) -> tuple[float, ...]:
    """The ends of a pair's interval, at most 1.6 times its ratio away, so that one wild pair leaves the axis usable."""
    if pair.ratio is None or pair.ratio.ci_low is None or pair.ratio.ci_high is None:
        return ()
    return (max(pair.ratio.ci_low, pair.ratio.ratio / 1.6), min(pair.ratio.ci_high, pair.ratio.ratio * 1.6))


def _latency_panel(axes: Axes, cells: Sequence[CellResult], keys: Sequence[NetworkKey]) -> None:
    """One model on one setting: the dense bars and their level, then masked beside shrunk by recipe."""
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)
    shown = {_place(cell.key.network): cell.key.network for cell in cells}
    places = sorted(shown)
    names = [_bar_name(shown[place], keys) for place in places]
    shift = {"dense": 0.0, "masked": -0.2, "shrunk": 0.2}
    for cell in cells:
        summary, variant = cell.latency, cell.key.network.variant
        if summary is None:
            continue
        x = places.index(_place(cell.key.network)) + shift[variant]
        axes.bar(x, summary.median / 1e6, width=0.4, edgecolor="#333333", linewidth=0.4, **VARIANT_FILLS[variant])
        if summary.ci_low is not None and summary.ci_high is not None:
            interval(axes, x, summary.ci_low / 1e6, summary.ci_high / 1e6, "black")
        if variant == "dense":
            axes.axhline(summary.median / 1e6, color="#4d4d4d", linestyle=":", linewidth=0.8, zorder=0.9)
    axes.set_xticks(range(len(places)), names)
    if any(len(name) > 8 for name in names):
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(places) - 0.4)


def _latency_tops(cells: Sequence[CellResult]) -> dict[wording.Setting, float]:
    """The upper ends of one model's axes in ms: one for all settings, unless some are more than 2.5 times as fast.

    A single wild interval is cut at twice the highest bar, not to squeeze all.
    """
    tops: dict[wording.Setting, float] = {}
    for setting in dict.fromkeys(wording.setting(cell.key) for cell in cells):
        mine = [cell.latency for cell in cells if cell.latency is not None and wording.setting(cell.key) == setting]
        highest = max(summary.median for summary in mine)
        tops[setting] = 1.06 * min(max(summary.ci_high or summary.median for summary in mine), 2 * highest) / 1e6
    shared = max(tops.values())
    return tops if shared > 2.5 * min(tops.values()) else dict.fromkeys(tops, shared)


def _place(key: NetworkKey) -> tuple[float, Recipe]:
    """What places a network on the axis; dense ones come first."""
    return (-1.0 if key.variant == "dense" else key.pruning_ratio or 0.0), recipe_of(key)


def _bar_name(key: NetworkKey, among: Sequence[NetworkKey]) -> str:
    """ "dense", or the recipe's label; with the seed where several are shown."""
    label = wording.recipe_label(key, among)
    if key.variant != "dense":
        return label
    return "dense" if label == wording.UNKNOWN else f"dense, {label}"
