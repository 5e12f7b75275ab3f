"""compile.md: what compiled networks take, as tables of the CSV files that lie beside it. Start with `write_page`.

Reads files only, so that each of peers.py, instructions.py and footprint.py can write the whole page.
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from peer_rows import GOAL_EACH, GOAL_MEAN, Row, Unit, best_peer, by_unit, mean_quotient, quotients, read
from peer_runtimes import OURS, RUNTIMES, TITLES

from edgeprune.transport import LOCAL

PAGE_FILE, LATENCY_FILE = "compile.md", "latency.csv"
INSTRUCTIONS_FILE, FOOTPRINT_FILE = "instructions.csv", "footprint.csv"
FORMS = ("dense", "shrunk")
Line = Mapping[str, str]
Units = Mapping[Unit, Mapping[str, Row]]


def write_page(folder: Path) -> None:
    """Write the page of the tables that the folder holds."""
    rows = read(folder / LATENCY_FILE)
    parts = ["# Compiled networks: latency, instructions, size and memory"]
    parts += _latency(by_unit(rows)) if rows else []
    parts += _instructions(_lines(folder / INSTRUCTIONS_FILE))
    parts += _footprint(_lines(folder / FOOTPRINT_FILE))
    (folder / PAGE_FILE).write_text("\n\n".join(parts) + "\n")


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# --- latency ----------------------------------------------------------------------------------------------------------


def _latency(units: Units) -> list[str]:
    rows = [row for unit in units.values() for row in unit.values()]
    rounds = sorted({len(row.round_ms) for row in rows if row.round_ms})
    versions = dict.fromkeys(f"{TITLES.get(row.runtime, row.runtime)}: {row.version}" for row in rows if row.version)
    heads = ["network", "threads", *(TITLES.get(name, name) for name in RUNTIMES), *(f"{name} / best" for name in OURS)]
    return [
        "## Latency",
        f"Made by `python benchmarks/speed/peers.py` on {platform.machine()}: float32, batch 1, ms, medians "
        f"of {' to '.join(map(str, rounds[:1] + rounds[1:][-1:]))} rounds in random order, each runtime in a process "
        "of its own on the same cores. Shrunk: a random half of the filters is gone, widths are ragged. / best: "
        "geometric mean over rounds of the latency by that of the fastest of the four others (**bold**), with its 95 % "
        "interval. wrong: another answer than ONNX Runtime's, not timed. " + "; ".join(versions) + ".",
        _table(heads, [_unit_line(unit, units[unit], units) for unit in units]),
        "### Goals",
        f"Geometric means of at most {GOAL_MEAN:.1f}, no network above {GOAL_EACH:.1f}.",
        _table(["runtime", "form", "threads", "geometric mean", "networks", "worst", "goal"], _goals(units)),
        *_faults(rows),
    ]


def _unit_line(key: Unit, unit: Mapping[str, Row], units: Units) -> list[str]:
    network, form, threads = key
    best = best_peer(unit)
    cells = []
    for name in RUNTIMES:
        row = unit.get(name)
        text = "" if row is None else f"{row.latency_ms:.3g}" if row.status == "ok" else row.status
        cells.append(f"**{text}**" if best and name == best.runtime else text)
    ratios = [quotients(units, name, form, threads).get(network) for name in OURS]
    return [f"{network}, {form}", str(threads), *cells, *("" if one is None else str(one) for one in ratios)]


def _goals(units: Units) -> list[list[str]]:
    lines = []
    for runtime in OURS:
        for form in FORMS:
            for threads in sorted({unit[2] for unit in units}):
                mean = mean_quotient(units, runtime, form, threads)
                if mean is None:
                    continue
                each = quotients(units, runtime, form, threads)
                worst = max(each, key=lambda name: each[name].middle)
                is_met = mean.middle <= GOAL_MEAN and each[worst].middle <= GOAL_EACH
                verdict = "met" if is_met else "missed"
                told = [str(mean), str(len(each)), f"{each[worst].middle:.2f} ({worst})", verdict]
                lines.append([runtime, form, str(threads), *told])
    return lines


def _faults(rows: Sequence[Row]) -> list[str]:
    """What each runtime that was not timed gave as its reason."""
    told = [
        f"- {row.network}, {row.form}, {row.threads} threads, {TITLES.get(row.runtime, row.runtime)}: "
        f"{row.status}: {row.reason}"
        for row in rows
        if row.status != "ok"
    ]
    return ["Not timed:", "\n".join(told)] if told else []


# --- instructions, size, memory ---------------------------------------------------------------------------------------


def _instructions(lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    targets = list(dict.fromkeys(line["target"] for line in lines))
    counts = {(line["network"], line["form"], line["target"]): line for line in lines}
    networks = list(dict.fromkeys((line["network"], line["form"]) for line in lines))

    def cell(line: Line | None) -> str:
        if line is None:
            return ""
        beyond = int(line["program_bytes"]) - int(line["weights_bytes"])
        return f"{int(line['instructions']) / 1e6:,.2f}, {beyond / 1024:.0f}"

    table = [
        [f"{name}, {form}", *(cell(counts.get((name, form, target))) for target in targets)] for name, form in networks
    ]
    return [
        "## Instructions",
        "Made by `python benchmarks/speed/instructions.py`: million instructions of one inference on one thread, "
        "counted under emulation, and KB of the program beyond its weights. A count is no latency; it tells whether "
        "code got better.",
        _table(["network", *targets], table),
    ]


def _footprint(lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    here = [line for line in lines if line["machine"] == LOCAL]
    elsewhere = [line for line in lines if line["machine"] != LOCAL]
    heads = ["weights", "program beyond", "arena", "workspace", "peak resident", "beyond all"]
    parts = ["## Size and memory"]
    if here:
        parts += [
            "Made by `python benchmarks/speed/footprint.py` on this machine, one thread, KB: the static program beyond "
            "its weights; the planned arena and the most that a kernel borrows; the peak of its process, what of it is "
            "beyond weights, arena and workspace; the peak of a process of ONNX Runtime with its Python worker.",
            _table(["network", *heads, "ONNX Runtime"], [[_subject(line), *_sizes(line)] for line in here]),
        ]
    if elsewhere:
        parts += [
            "The same on other machines, as the kernel there tells it; virtual-pi-vm is a whole emulated one, made by "
            "`python benchmarks/speed/footprint.py --machine virtual-pi-vm --target rpi4`.",
            _table(
                ["network", "machine", "target", *heads],
                [[_subject(line), line["machine"], line["target"], *_sizes(line)] for line in elsewhere],
            ),
        ]
    return parts


def _subject(line: Line) -> str:
    return f"{line['network']}, {line['form']}"


def _sizes(line: Line) -> list[str]:
    """The numbers of a row, KB; ONNX Runtime's last, where it was run."""
    numbers = {name: int(text) for name, text in line.items() if name.endswith("_bytes") and text}
    planned = sum(numbers[f"{part}_bytes"] for part in ("weights", "arena", "workspace"))
    sizes = [
        numbers["weights_bytes"],
        numbers["program_bytes"] - numbers["weights_bytes"],
        numbers["arena_bytes"],
        numbers["workspace_bytes"],
        numbers["native_rss_bytes"],
        numbers["native_rss_bytes"] - planned,
        *([numbers["onnxruntime_rss_bytes"]] if "onnxruntime_rss_bytes" in numbers else []),
    ]
    return [f"{size / 1024:,.0f}" for size in sizes]
