"""report.html: one file that opens anywhere, without a network, and tells what came out.

`page` fills `page/report.html.jinja` (with its style and its script for sorting tables) from `Results`. Figures are
put in as data, so that the file can be mailed alone. Text from a run is always escaped. Start with `page`.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2

from edgeprune.measuring import FLAG_MEANINGS
from edgeprune.reporting import wording
from edgeprune.reporting.answer import answer
from edgeprune.reporting.methods import COMPARING, fitting
from edgeprune.reporting.page_tables import (
    accelerator_table,
    cells_table,
    cycles_table,
    instructions_table,
    methods_table,
    networks_table,
    pairs_table,
)
from edgeprune.reporting.results import CellResult, Results
from edgeprune.reporting.staircase import STAIRCASE, steps_in_words

CAPTIONS: Mapping[str, tuple[str, str]] = {
    "pareto": (
        "Accuracy against what is gone",
        "Each marker is a method at one ratio, the star the dense network. The same networks in each panel: by the "
        "filters that were removed, by the parameters and MACs that are gone once the network is shrunk, and by the "
        "latency that this saves over the dense network. The steps are the front: no other point has as much gone and "
        "is as often right. Pale points at the foot lie below the axis. Of many runtimes and devices three are drawn.",
    ),
    "methods": (
        "Promised and real speed-up by method",
        "A line a recipe: what its removed filters and what its MACs promise, and what is measured of it. A method "
        "whose zeros leave no whole structure promises nothing, and the same number of removed filters promises less "
        "where they are of streams that others keep alive. The axis is logarithmic.",
    ),
    "speedup": (
        "Promised and real speed-up",
        "Each point is a masked/shrunk pair; a line joins the pruning ratios of one network on one runtime. On the "
        "dashed line all of the speed-up that the MACs promise is real; on the grey line pruning gains no time. "
        "Bars are 95 % intervals. Points of one network on several runtimes are set apart by up to 3 %, to show all. "
        "Both axes are logarithmic.",
    ),
    "latency": (
        "Latency of dense, masked and shrunk networks",
        "Median latency of a call with its 95 % interval. The dotted line continues the dense network. A masked "
        "network keeps the dense one's shapes, and usually its time. Where a runtime is much slower than another, "
        "its panel has a scale of its own.",
    ),
    "instructions": (
        "Promised gain and instructions",
        "Instructions of one inference of the static program, counted under emulation: how many times fewer than the "
        "dense network's, against what the MACs promise. Filled points are shrunk networks, hollow ones masked, and "
        "the lines start at the dense network. On the dashed line all of the MACs' promise is saved; on the grey line "
        "nothing is. Both axes are logarithmic. A count is no latency: it says nothing of memory and caches.",
    ),
    "cycles": (
        "Promised gain and an accelerator's cycles",
        "Cycles of one inference of the int8 network on a simulated array of multipliers: how many times fewer than "
        "the dense network's, against what the MACs promise. Filled points are shrunk networks, hollow ones masked, "
        "and the lines start at the dense network. Both axes are logarithmic. Cycles are of this array alone, not of "
        "any vendor's.",
    ),
    "staircase": (
        "What a layer's width costs on an array",
        "Cycles of a 3x3 convolution by its channels, in and out, over those of the widest; the dashed line is what "
        "its MACs say. An array computes so many channels at once as it is wide, and a group that is not full costs "
        "what a full one does: only widths at the foot of a step save cycles.",
    ),
    "accuracy": (
        "Accuracy against what was pruned",
        "The same networks twice: by the share of filters that was pruned (blue), and by the share of parameters "
        "that is really gone once the network is shrunk (red).",
    ),
    "compression": (
        "Compression by filters and by parameters",
        "Compression is 100 / (100 - rate in percent). Above the dashed line more parameters are gone than filters: "
        "a removed filter also removes the weights of the next layer that read it.",
    ),
}
WORDS: Mapping[str, str] = {
    "pruning ratio": "share of filters that was to go, or of what else the method prunes",
    "dense, masked, shrunk": "the untouched network; the same with filters set to zero and all shapes kept; the "
    "network with the zeroed parts really gone",
    "MAC": "one multiply-add",
    "promised speed-up": "by filters (or other structures) 1 / (1 - ratio); by MACs those of the dense over those "
    "of the shrunk network",
    "real speed-up": "latency of the masked over that of the shrunk network, from launches that ran back to back; "
    "geometric mean over blocks, with a bootstrap 95 % interval",
    "realised": "log(real) / log(promised by MACs): 100 % is all of it, 0 % nothing, below 0 % slower than before",
    "no change": "the 95 % interval holds 1",
    "launch, block": "a fresh process; one launch of every network, in random order",
}
WORDS_OF_METHODS: Mapping[str, str] = {
    "filters gone": "share of the prunable filters that are zero, all of each; of the columns, channels or shapes "
    "instead, where the method prunes those",
    "zeros, parameters gone": "share of the dense network's parameters that pruning set to zero; that the shrunk "
    "network does without",
    "to dense": "accuracy less the dense network's; bold where more than 2 points are lost",
}


def page(results: Results, svg: Mapping[str, bytes], files: Sequence[str]) -> str:
    """The report as HTML.

    Args:
        results: What is told.
        svg: Figures by name, as SVG files.
        files: Paths of the other files of the report, relative to the page, to link to.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeprune.reporting", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    manifest = results.manifest
    return environment.get_template("report.html.jinja").render(
        manifest=manifest,
        created=_moment(manifest.created_at),
        answer=answer(results),
        **_ends(results),
        figures=_figures(results, svg),
        missing=_missing(results, svg),
        tables=[
            make(results)
            for make in (
                methods_table,
                pairs_table,
                instructions_table,
                cycles_table,
                accelerator_table,
                cells_table,
                networks_table,
            )
        ],
        flags=_flags(results),
        noise=_noise(results),
        problems=results.problems,
        notes=_notes(results),
        devices={name: _facts(facts) for name, facts in results.devices.items()},
        versions=_facts(manifest.versions),
        git=_facts(manifest.git or {}),
        plan=_plan(manifest.plan),
        matrix=json.dumps(manifest.matrix, indent=2, ensure_ascii=False, default=str),
        words={**WORDS, **(WORDS_OF_METHODS if COMPARING & set(svg) else {})},
        files=files,
    )


def _ends(results: Results) -> dict[str, Any]:
    """How many cells ended how, those that did not end well (one cause is told once), and how many are left."""
    number = Counter(cell.end.status for cell in results.cells)
    wrong: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
        if not cell.ok:
            cause = (cell.end.status, cell.end.reason or "no reason was recorded")
            wrong.setdefault(cause, []).append(_cell_name(cell))
    return {
        "statuses": [(status, number[status]) for status in ("ok", "invalid", "failed", "skipped") if number[status]],
        "wrong": [(status, reason, names[0], len(names) - 1) for (status, reason), names in wrong.items()],
        "left": len(results.unfinished),
    }


def _figures(results: Results, svg: Mapping[str, bytes]) -> list[dict[str, str]]:
    """The figures that were drawn, in the order of their captions, each as data of an address."""
    return [
        {
            "name": name,
            "title": title,
            "caption": caption,
            "data": base64.b64encode(svg[name]).decode(),
            "width": _width(svg[name]),
            "alt": _alt(results, name, title),
        }
        for name, (title, caption) in CAPTIONS.items()
        if name in svg
    ]


def _missing(results: Results, svg: Mapping[str, bytes]) -> list[str]:
    """The titles of figures that could not be drawn; those of counts only where something was to be counted."""
    wanted = {"instructions": results.counts_instructions, "cycles": results.counts_cycles,
              "staircase": results.counts_cycles}  # fmt: skip
    asked = [name for name in fitting(results, CAPTIONS) if wanted.get(name, True)]
    return [CAPTIONS[name][0] for name in asked if name not in svg]


def _flags(results: Results) -> list[tuple[str, str, int]]:
    """Each flag with its meaning and the number of cells that earn it."""
    earned = Counter(flag for cell in results.cells for flag in cell.flags)
    return [(name, meaning, earned[name]) for name, meaning in FLAG_MEANINGS.items()]


def _noise(results: Results) -> str:
    """How far the intervals of the latencies reach, as the middle cell and the worst one have it; "" without any."""
    halves = sorted(
        (summary.ci_high - summary.ci_low) / (2 * summary.median)
        for summary in (cell.latency for cell in results.cells)
        if summary and summary.ci_low is not None and summary.ci_high is not None
    )
    if not halves:
        return ""
    return (
        f"Noise: half of the 95 % interval is {wording.percent(halves[len(halves) // 2], 1)} of the median latency in "
        f"the middle cell, {wording.percent(halves[-1], 1)} in the worst."
    )


def _cell_name(cell: CellResult) -> str:
    key, network = cell.key, cell.key.network
    ratio = "" if network.pruning_ratio is None else f" {wording.percent(network.pruning_ratio)}"
    recipe = "" if network.variant == "dense" else f" {network.method}{ratio}"
    name = f"{wording.model_name(network.model)}{recipe} {network.variant}"
    return f"{name}, {wording.runtime_name(key.runtime)} on {key.device}, {key.threads} thread" + "s" * (
        key.threads > 1
    )


def _notes(results: Results) -> list[str]:
    """What the builders of networks have to say, and operations whose MACs are not in the counts."""
    notes = [f"{wording.model_name(one.key.model)} {one.key.variant}: {note}" for one in results.networks
             for note in one.notes]  # fmt: skip
    notes += steps_in_words(results)
    uncounted: dict[str, set[str]] = {}
    for network in results.networks:
        uncounted.setdefault(network.key.model, set()).update(network.uncounted_ops)
    notes += [
        f"{wording.model_name(model)}: operations that its MACs leave out: {', '.join(sorted(operations))}"
        for model, operations in uncounted.items()
        if operations
    ]
    return list(dict.fromkeys(notes))


def _alt(results: Results, name: str, title: str) -> str:
    """What a reader who cannot see the figure needs: its subject, and where its numbers stand."""
    models = ", ".join(dict.fromkeys(wording.model_name(network.key.model) for network in results.networks))
    tables = {"speedup": "Pairs", "latency": "Cells", "instructions": "Instructions", "cycles": "Cycles"}
    table = (tables | dict.fromkeys(COMPARING, "Methods")).get(name, "Networks")
    return f"{title} of {models}. Its numbers are in the table {table} below."


def _width(svg: bytes) -> str:
    """Whether a figure was drawn for one column of a paper ("narrow") or for two ("wide"), by its width in points."""
    found = re.search(rb'<svg[^>]*? width="([0-9.]+)pt"', svg)
    return "narrow" if found and float(found[1]) < 300 else "wide"


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values in words; what the device could not tell, and the protocol's own word, are left out."""
    told = [(wording.fact_name(name), wording.fact(name, value)) for name, value in facts.items()
            if name not in ("event", STAIRCASE)]  # fmt: skip
    return [(name, value) for name, value in told if value != wording.UNKNOWN]


def _unbroken(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=(%|s|ms)(?!\w))", "\N{NO-BREAK SPACE}", text)


def _plan(plan: Mapping[str, Any]) -> str:
    """The measuring plan as a sentence; of a plan that is written otherwise, its fields."""
    try:
        return (
            f"Plan “{plan['name']}”: {plan['launches']} launches a cell, each of at least {plan['samples']} samples "
            f"and {plan['seconds']:g} s, calls under 1 ms in groups of {1000 * plan['group_seconds']:g} ms, after a "
            f"warm-up of at least {plan['warmup_calls']} calls and {plan['warmup_seconds']:g} s."
        )
    except (KeyError, TypeError, ValueError):
        return ", ".join(f"{name} {value}" for name, value in plan.items())


def _moment(text: str) -> str:
    """A time of the manifest, in UTC and said so; as it stands if it is no ISO 8601 time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M}"
