"""The four figures of a run, as a paper prints them: one or two columns wide, readable in grey and by the colour-blind.

`draw` makes matplotlib figures from `Results`, `encode` turns one into PDF, SVG and PNG. No pyplot, so no global state
and no display; no dates inside, so that equal results give equal files. Each figure is a function of its own; start
with `speedup`, which is the point of a run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from edgeprune.reporting import wording
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import Network, NetworkKey

FORMATS = ("pdf", "svg", "png")
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches, as in most two-column papers

# Okabe & Ito, "Color Universal Design" (2008), ordered so that neighbours also differ in grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
BY_FILTERS, BY_PARAMETERS = "#0072B2", "#D55E00"
VARIANT_FILLS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dense": {"facecolor": "#4d4d4d"},
        "masked": {"facecolor": "#9ecae9", "hatch": "////"},
        "shrunk": {"facecolor": "#0072B2"},
    }
)
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
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0)


def draw(results: Results) -> dict[str, Figure]:
    """The figures that the results allow, by name: speedup, latency, accuracy, compression.

    One that would be empty is left out: no pair finished, no network built.
    """
    with _style():
        made = {
            "speedup": speedup(results),
            "latency": latency(results),
            "accuracy": accuracy(results),
            "compression": compression(results),
        }
    return {name: figure for name, figure in made.items() if figure is not None}


def encode(figure: Figure, form: str) -> bytes:
    """A figure as a file of one of `FORMATS`; fonts are embedded, and no date is written."""
    dates: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=form, metadata=dates[form])
    return buffer.getvalue()


def speedup(results: Results) -> Figure | None:
    """Real speed-up against the one promised by MACs, both logarithmic, with 95 % intervals and the line y = x."""
    pairs = [pair for pair in results.pairs if pair.ratio is not None and pair.theoretical_macs is not None]
    if not pairs:
        return None
    labels = wording.setting_labels(pair.key for pair in pairs)
    colours = _assigned(list(labels.values()), COLOURS)
    markers = _assigned([pair.key.network.model for pair in pairs], MARKERS)
    rows = max(len(colours) + 1, len(markers))
    figure = Figure(figsize=(ONE_COLUMN, 2.8 + 0.16 * rows), layout="constrained")
    axes = figure.add_subplot()
    for (model, _, _, setting), line in _trajectories(pairs).items():
        colour, marker = colours[labels[setting]], markers[model]
        xs = [pair.theoretical_macs or 1.0 for pair in line]
        ratios = [pair.ratio for pair in line if pair.ratio is not None]
        axes.plot(xs, [ratio.ratio for ratio in ratios], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        for x, ratio in zip(xs, ratios, strict=True):
            axes.plot(x, ratio.ratio, marker=marker, color=colour, markeredgecolor="white", markeredgewidth=0.4,
                      markersize=4.2, linestyle="none", zorder=3)  # fmt: skip
            _interval(axes, x, ratio.ci_low, ratio.ci_high, colour)
    promised = [pair.theoretical_macs for pair in pairs if pair.theoretical_macs is not None]
    real = [value for pair in pairs if pair.ratio for value in (pair.ratio.ratio, *_clipped_interval(pair))]
    _log_axes(axes, min([1.0, *promised]) / 1.08, max([1.5, *promised]) * 1.15, [*real, 1.0])
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="#555555", linestyle="--", linewidth=0.9, zorder=1)
    axes.axhline(1.0, color="#999999", linewidth=0.7, zorder=1)
    axes.set_xlabel("speed-up promised by MACs, dense / shrunk")
    axes.set_ylabel("real speed-up, masked / shrunk")
    left = [Line2D([], [], color=colour, linewidth=2.5, label=label) for label, colour in colours.items()]
    left.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="all of it real (y = x)"))
    right = [
        Line2D([], [], color="#333333", marker=marker, linestyle="none", label=wording.model_name(model))
        for model, marker in markers.items()
    ]
    figure.legend(handles=_two_columns(left, right), loc="outside lower center", ncols=2, handlelength=1.6)
    return figure


def latency(results: Results) -> Figure | None:
    """Latency of dense, masked and shrunk networks, a panel a model and setting, bars with 95 % intervals."""
    cells = [cell for cell in results.cells if cell.latency is not None]
    if not cells:
        return None
    labels = wording.setting_labels(cell.key for cell in cells)
    models = list(dict.fromkeys(cell.key.network.model for cell in cells))
    groups = max(
        len({_recipe(cell.key.network) for cell in cells if cell.key.network.model == model}) for model in models
    )
    width = ONE_COLUMN if len(labels) == 1 and groups <= 5 else TWO_COLUMNS
    figure = Figure(figsize=(width, 0.55 + 1.55 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), len(labels), squeeze=False)
    keys = [cell.key.network for cell in cells if cell.key.network.variant != "dense"]
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
                axes.set_xlabel("filters pruned")
    shown = [name for name in VARIANT_FILLS if any(cell.key.network.variant == name for cell in cells)]
    patches = [Patch(label=name, edgecolor="#333333", linewidth=0.4, **VARIANT_FILLS[name]) for name in shown]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, handlelength=1.6)
    return figure


def accuracy(results: Results) -> Figure | None:
    """Accuracy against the pruned share of filters (blue) and of parameters (red), a panel a model.

    Source: Tessier et al., "Effects of structured pruning" (2022), figure 3.
    """
    curves = _curves(results)
    if not curves:
        return None
    figure, panels = _panels(list(curves))
    for axes, model in zip(panels, curves, strict=True):
        for number, line in enumerate(curves[model].values()):
            style = ("-", "--", ":", "-.")[number % 4]
            dense, points = line
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
        axes.yaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_ylabel("accuracy (%)")
    handles = [
        Line2D([], [], color=BY_FILTERS, marker="o", label="share of filters"),
        Line2D([], [], color=BY_PARAMETERS, marker="s", label="share of parameters, once shrunk"),
    ]
    figure.legend(handles=[*handles, *_recipe_handles(curves)], loc="outside lower center", ncols=2)
    return figure


def compression(results: Results) -> Figure | None:
    """Compression by parameters, once shrunk, against compression by filters, with the line y = x.

    Source: Tessier et al. (2022), figure 4; compression = 100 / (100 - rate in percent).
    """
    curves = {
        model: {
            recipe: [
                (masked.filters / (masked.filters - masked.pruned_filters), dense.params / shrunk.params)
                for masked, shrunk in points
                if masked.filters > masked.pruned_filters
            ]
            for recipe, (dense, points) in lines.items()
            if dense
        }
        for model, lines in _curves(results).items()
    }
    every = [point for lines in curves.values() for points in lines.values() for point in points]
    if not every:
        return None
    figure = Figure(figsize=(ONE_COLUMN, 3.0 + 0.16 * math.ceil(len(curves) / 2)), layout="constrained")
    axes = figure.add_subplot()
    handles = []
    colours, markers = _assigned(list(curves), COLOURS), _assigned(list(curves), MARKERS)
    for model, lines in curves.items():
        for number, points in enumerate(lines.values()):
            style = ("-", "--", ":", "-.")[number % 4]
            xs, ys = zip(*sorted([(1.0, 1.0), *points]), strict=True)
            axes.plot(xs, ys, color=colours[model], marker=markers[model], linestyle=style,
                      markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
        handles.append(Line2D([], [], color=colours[model], marker=markers[model], label=wording.model_name(model)))
    right, top = (max([1.5, *values]) for values in zip(*every, strict=True))
    _log_axes(axes, 0.94, right * 1.12, [1.0, top])
    axes.plot([0.9, right * 1.12], [0.9, right * 1.12], color="#555555", linestyle="--", linewidth=0.9, zorder=1)
    axes.set_xlabel("compression by pruned filters")
    axes.set_ylabel("compression by parameters, once shrunk")
    handles.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="y = x"))
    recipes = _recipe_handles(_curves(results))
    figure.legend(handles=[*handles, *recipes], loc="outside lower center", ncols=2)
    return figure


Recipe = tuple[str, int]
Curve = tuple[Network | None, list[tuple[Network, Network]]]


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
        lines.setdefault((key.method, key.seed), (results.dense(key), []))[1].append((masked, network))
    order = list(dict.fromkeys(network.key.model for network in results.networks))
    return {model: dict(sorted(curves[model].items())) for model in order if model in curves}


def _recipe_handles(curves: Mapping[str, Mapping[Recipe, Curve]]) -> list[Line2D]:
    """Line styles for methods and seeds, where there is more than one."""
    recipes = sorted({recipe for lines in curves.values() for recipe in lines})
    if len(recipes) < 2:
        return []
    several = len({seed for _, seed in recipes}) > 1
    return [
        Line2D([], [], color="#333333", linestyle=("-", "--", ":", "-.")[number % 4],
               label=f"{method}, seed {seed}" if several else method)
        for number, (method, seed) in enumerate(recipes)
    ]  # fmt: skip


def _trajectories(pairs: Sequence[PairResult]) -> dict[tuple[str, str, int, wording.Setting], list[PairResult]]:
    """Pairs of one model, method, seed and setting, by rising ratio: the points that a line joins."""
    lines: dict[tuple[str, str, int, wording.Setting], list[PairResult]] = {}
    for pair in sorted(pairs, key=lambda one: one.pruning_ratio):
        key = pair.key.network
        lines.setdefault((key.model, key.method, key.seed, wording.setting(pair.key)), []).append(pair)
    return lines


def _latency_panel(axes: Axes, cells: Sequence[CellResult], keys: Sequence[NetworkKey]) -> None:
    """One model on one setting: the dense bar and its level, then masked beside shrunk by recipe."""
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)
    recipes = sorted({_recipe(cell.key.network) for cell in cells})
    names = {_recipe(key): wording.recipe_label(key, keys) for key in keys}
    shift = {"dense": 0.0, "masked": -0.2, "shrunk": 0.2}
    for cell in cells:
        summary, variant = cell.latency, cell.key.network.variant
        if summary is None:
            continue
        x = recipes.index(_recipe(cell.key.network)) + shift[variant]
        axes.bar(x, summary.median / 1e6, width=0.4, edgecolor="#333333", linewidth=0.4, **VARIANT_FILLS[variant])
        if summary.ci_low is not None and summary.ci_high is not None:
            _interval(axes, x, summary.ci_low / 1e6, summary.ci_high / 1e6, "black")
        if variant == "dense":
            axes.axhline(summary.median / 1e6, color="#4d4d4d", linestyle=":", linewidth=0.8, zorder=0.9)
    axes.set_xticks(range(len(recipes)), [names.get(recipe, "dense") for recipe in recipes])
    if any(len(name) > 8 for name in names.values()):
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.6, len(recipes) - 0.4)


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


def _recipe(key: NetworkKey) -> tuple[float, str, int]:
    """What places a network on the axis; the dense one comes first."""
    return (-1.0, "", 0) if key.variant == "dense" else (key.pruning_ratio or 0.0, key.method, key.seed)


def _interval(axes: Axes, x: float, low: float | None, high: float | None, colour: str) -> None:
    """A 95 % interval as a bar with caps; nothing where there is none."""
    if low is not None and high is not None:
        middle = (low + high) / 2
        axes.errorbar(x, middle, yerr=(high - low) / 2, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2, zorder=4)


def _two_columns(left: list[Line2D], right: list[Line2D]) -> list[Line2D]:
    """Legend entries for two columns, which matplotlib fills one after the other: the shorter is padded."""
    height = max(len(left), len(right))

    def padded(entries: list[Line2D]) -> list[Line2D]:
        return entries + [Line2D([], [], linestyle="none", label=" ") for _ in range(height - len(entries))]

    return padded(left) + padded(right)


def _clipped_interval(pair: PairResult) -> tuple[float, ...]:
    """The ends of a pair's interval, at most 1.6 times its ratio away, so that one wild pair leaves the axis usable."""
    if pair.ratio is None or pair.ratio.ci_low is None or pair.ratio.ci_high is None:
        return ()
    return (max(pair.ratio.ci_low, pair.ratio.ratio / 1.6), min(pair.ratio.ci_high, pair.ratio.ratio * 1.6))


def _log_axes(axes: Axes, low: float, high: float, values: Sequence[float]) -> None:
    """Logarithmic axes, x from `low` to `high` and y around `values`, ticks written as plain factors."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(values) / 1.08, max(values) * 1.08)
    for axis, (start, end) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [tick for tick in _TICKS if start <= tick <= end]
        step = math.ceil(len(ticks) / 8)
        axis.set_major_locator(FixedLocator(ticks[::step]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _panels(models: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a model, at most four in a row."""
    columns = min(4, len(models))
    rows = math.ceil(len(models) / columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = Figure(figsize=(width, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    every = [axes for line in grid for axes in line]
    for axes in every[len(models) :]:
        axes.set_visible(False)
    return figure, every[: len(models)]


def _percentages(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * x for x, _ in points], [100 * y for _, y in points]


def _assigned(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Each name with a value of its own, in order; values come round again when they run out."""
    return {name: values[number % len(values)] for number, name in enumerate(dict.fromkeys(names))}


@contextmanager
def _style() -> Iterator[None]:
    """The style inside the block only; matplotlib's settings are as before afterwards."""
    settings: dict[Any, Any] = dict(STYLE)
    with matplotlib.rc_context(settings):
        yield
