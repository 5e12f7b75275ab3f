"""The figures about counts: how many fewer instructions or cycles a pruned network takes than its MACs promise.

`staircase` draws what a layer's width costs on an accelerator. Start with `instructions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from edgeprune.reporting import wording
from edgeprune.reporting.counts import Counted, CountGain, gains, target_labels
from edgeprune.reporting.plot_style import (
    COLOURS,
    MARKERS,
    ONE_COLUMN,
    Recipe,
    assigned,
    line_styles,
    log_axes,
    recipe_handles,
    recipe_of,
    two_columns,
)
from edgeprune.reporting.results import Results
from edgeprune.reporting.staircase import staircases

DENSE = "#8c8c8c"


def instructions(results: Results) -> Figure | None:
    """Instructions saved against the speed-up that MACs promise."""
    return _saved(results, "instructions")


def cycles(results: Results) -> Figure | None:
    """An accelerator's cycles saved against the speed-up that MACs promise."""
    return _saved(results, "cycles")


def staircase(results: Results) -> Figure | None:
    """Cycles of a layer by its channels, over those of the widest, a line an array; dashed what its MACs say."""
    found = staircases(results)
    if not found:
        return None
    figure = Figure(figsize=(ONE_COLUMN, 2.6), layout="constrained")
    axes = figure.add_subplot()
    colours = assigned(found, COLOURS)
    for name, steps in found.items():
        widths = [step.channels for step in steps]
        axes.step(widths, [100 * step.cycles / steps[-1].cycles for step in steps], where="mid", color=colours[name],
                  label=name, zorder=3)  # fmt: skip
    longest = max(found.values(), key=len)
    axes.plot([step.channels for step in longest], [100 * step.macs / longest[-1].macs for step in longest],
              color="#555555", linestyle="--", linewidth=0.9, label="MACs", zorder=2)  # fmt: skip
    axes.set_xticks(range(0, longest[-1].channels + 1, 8))
    axes.set_xlim(0, longest[-1].channels + 1)
    axes.set_ylim(0, 105)
    axes.set_xlabel("channels, in and out, of a 3x3 convolution")
    axes.set_ylabel("of the widest, %")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _saved(results: Results, what: Counted) -> Figure | None:
    """Counts saved against the speed-up promised by MACs, both logarithmic, with the lines y = x and y = 1.

    A line a network and device: from the dense network at (1, 1) over the shrunk ones (filled); the masked
    ones (hollow) stand at the promise of their shrunk partners.
    """
    shown = [one for one in gains(results, what) if one.gain is not None and one.theoretical_macs is not None]
    if not shown:
        return None
    names = _names(shown)
    colours, markers = assigned(names.values(), COLOURS), assigned(names.values(), MARKERS)
    styles = line_styles(recipe_of(one.key.network) for one in shown)
    legend = _legend(colours, markers, styles)
    figure = Figure(figsize=(ONE_COLUMN, 2.8 + 0.08 * len(legend)), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[tuple[str, Recipe], list[CountGain]] = {}
    for one in sorted(shown, key=lambda one: one.key.network.pruning_ratio or 0.0):
        lines.setdefault((names[_place(one)], recipe_of(one.key.network)), []).append(one)
    for (name, recipe), line in lines.items():
        colour, marker = colours[name], markers[name]
        xs, ys = [one.theoretical_macs or 1.0 for one in line], [one.gain or 1.0 for one in line]
        axes.plot([1.0, *xs], [1.0, *ys], color=colour, linestyle=styles[recipe], linewidth=0.8, alpha=0.6, zorder=2)
        axes.plot(xs, ys, color=colour, marker=marker, markeredgecolor="white", markeredgewidth=0.4, markersize=4.8,
                  linestyle="none", zorder=4)  # fmt: skip
        masked = [(x, one.masked_gain) for x, one in zip(xs, line, strict=True) if one.masked_gain is not None]
        axes.plot([x for x, _ in masked], [y for _, y in masked], color=colour, marker=marker, markerfacecolor="white",
                  markersize=4.2, linestyle="none", zorder=3)  # fmt: skip
    axes.plot(1.0, 1.0, color=DENSE, marker="o", markersize=4.8, linestyle="none", zorder=5)
    heights = [value for one in shown for value in (one.gain, one.masked_gain) if value is not None]
    right = max(one.theoretical_macs or 1.0 for one in shown)
    log_axes(axes, 1 / 1.08, max(1.5, right) * 1.15, [1.0, *heights])
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="#555555", linestyle="--", linewidth=0.9, zorder=1)
    axes.axhline(1.0, color="#999999", linewidth=0.7, zorder=1)
    axes.set_xlabel("speed-up promised by MACs, dense / shrunk")
    axes.set_ylabel(f"{what}, dense / pruned")
    figure.legend(handles=legend, loc="outside lower center", ncols=2, handlelength=1.6)
    return figure


def _place(gain: CountGain) -> tuple[str, wording.Setting]:
    return gain.key.network.model, wording.setting(gain.key)


def _names(shown: Sequence[CountGain]) -> dict[tuple[str, wording.Setting], str]:
    """What the legend calls a line: the network and the target of its code."""
    labels = target_labels(shown)
    return {
        _place(one): f"{wording.model_name(one.key.network.model)}, {labels[wording.setting(one.key)]}" for one in shown
    }


def _legend(
    colours: Mapping[str, str], markers: Mapping[str, str], styles: Mapping[Recipe, LineStyleType]
) -> list[Line2D]:
    """Networks and recipes on the left, what the markers and the dashed line mean on the right."""
    left = [
        Line2D([], [], color=colour, marker=markers[name], linewidth=0.8, label=name)
        for name, colour in colours.items()
    ]
    right = [
        Line2D([], [], color=DENSE, marker="o", linestyle="none", label="dense"),
        Line2D([], [], color="#333333", marker="o", linestyle="none", label="shrunk"),
        Line2D([], [], color="#333333", marker="o", markerfacecolor="white", linestyle="none", label="masked"),
        Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="as MACs promise (y = x)"),
    ]
    return two_columns([*left, *recipe_handles(styles)], right)
