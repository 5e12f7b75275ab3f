"""The tables of a run: cells.csv, pairs.csv and layers.csv for machines, LaTeX tables (booktabs) for papers.

Columns are those of `edgeprune.schema`; what is not known stays empty, never 0. Start with `cell_row` and `pair_row`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeprune.measuring import LatencySummary, throttled_window
from edgeprune.reporting import wording
from edgeprune.reporting.counts import Counted, CountGain, gains, target_labels
from edgeprune.reporting.methods import MethodRow, method_rows, settings_of
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import CELL_COLUMNS, CYCLE_COLUMNS, LAYER_COLUMNS, PAIR_COLUMNS, CellEnd, CellKey, Launch

Row = dict[str, Any]


def csv_files(results: Results) -> dict[str, bytes]:
    """The CSV files by name, UTF-8 with a header line and \\n line ends."""
    made = {
        "cells.csv": _csv(CELL_COLUMNS, [cell_row(results.manifest.run_id, cell) for cell in results.cells]),
        "pairs.csv": _csv(PAIR_COLUMNS, [pair_row(pair) for pair in results.pairs]),
        "layers.csv": _csv(LAYER_COLUMNS, layer_rows(results)),
    }
    cycles = cycle_rows(results)
    return made | ({"cycles.csv": _csv(CYCLE_COLUMNS, cycles)} if cycles else {})


def cell_row(run_id: str, cell: CellResult) -> Row:
    """One row of cells.csv; None where a value is not known.

    Temperatures are the first and the last that were read over the cell's launches, `parity_rel` the largest of them.
    """
    memory = [launch.peak_rss_bytes for launch in cell.launches if launch.peak_rss_bytes is not None]
    parities = [launch.parity_rel for launch in cell.launches if launch.parity_rel is not None]
    if cell.end.accelerated is not None:
        parities.append(cell.end.accelerated.parity_rel)
    return {
        "run_id": run_id,
        "cell_id": cell.end.cell_id,
        **cell.key.network.model_dump(),
        **_setting_columns(cell.key),
        **cell.end.model_dump(include=_END),
        **(cell.network.model_dump(include=_SIZES) if cell.network else dict.fromkeys(_SIZES)),
        **_accelerated_columns(cell.end),
        "parity_rel": max(parities, default=None),
        **_latency_columns(cell.latency),
        "peak_rss_bytes": max(memory, default=None),
        **_heat_columns(cell.launches),
        "flags": " ".join(cell.flags),
    }


def pair_row(pair: PairResult) -> Row:
    """One row of pairs.csv; None where a value is not known."""
    ratio = pair.ratio
    return {
        **pair.key.network.model_dump(exclude={"variant"}),
        **_setting_columns(pair.key),
        "theoretical_speedup_filters": pair.theoretical_filters,
        "theoretical_speedup_macs": pair.theoretical_macs,
        "real_speedup": ratio.ratio if ratio else None,
        "real_speedup_ci_low": ratio.ci_low if ratio else None,
        "real_speedup_ci_high": ratio.ci_high if ratio else None,
        "realised": pair.realised,
        "verdict": pair.verdict,
    }


def layer_rows(results: Results) -> list[Row]:
    """The rows of layers.csv: one a convolution or linear layer of each network."""
    return [
        {**network.key.model_dump(), **layer.model_dump()} for network in results.networks for layer in network.layers
    ]


def cycle_rows(results: Results) -> list[Row]:
    """The rows of cycles.csv: one a layer of each network on each simulated accelerator."""
    return [
        {**cell.key.network.model_dump(), "device": cell.key.device, **layer.model_dump()}
        for cell in results.cells
        if cell.end.accelerated is not None
        for layer in cell.end.accelerated.layers
    ]


def latex_files(results: Results) -> dict[str, bytes]:
    """The LaTeX tables by file name; all need the package booktabs and stand alone inside a `table`.

    Those of instructions and cycles are there where some were counted, that of methods where there are several.
    """
    made = {"pairs.tex": _pairs_table(results), "networks.tex": _networks_table(results)}
    counted = gains(results)
    compared = method_rows(results)
    if compared:
        made["methods.tex"] = _methods_table(results, compared)
    if counted:
        made["instructions.tex"] = _counts_table(counted, "instructions")
    if simulated := gains(results, "cycles"):
        made["cycles.tex"] = _counts_table(simulated, "cycles")
    return {name: text.encode() for name, text in made.items()}


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(latex_escape("l1_norm & 50 %"))
    l1\_norm \& 50 \%
    """
    return re.sub("[" + re.escape("".join(_LATEX)) + "]", lambda found: _LATEX[found[0]], text)


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    "\N{MINUS SIGN}": "$-$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


_END = {"status", "reason", "artifact_bytes", "weights_bytes", "arena_bytes", "instructions", "cycles"}
_SIZES = {"params", "nonzero_params", "macs", "accuracy", "onnx_bytes", "compressed_bytes"}


def _setting_columns(key: CellKey) -> Row:
    return key.model_dump(exclude={"network"})


def _latency_columns(latency: LatencySummary | None) -> Row:
    return {
        "latency_ns_median": latency.median if latency else None,
        "latency_ns_ci_low": latency.ci_low if latency else None,
        "latency_ns_ci_high": latency.ci_high if latency else None,
        "latency_ns_p90": latency.p90 if latency else None,
        "launches": latency.launches if latency else None,
        "samples": latency.samples if latency else None,
    }


def _accelerated_columns(end: CellEnd) -> Row:
    """What a simulated accelerator tells; its accuracy is that of the int8 network."""
    found: Row = {"array_utilisation": end.array_utilisation}
    one = end.accelerated
    found["bytes_moved"] = one.bytes_read + one.bytes_written if one else None
    found["stall_cycles"] = sum(one.stalls.values()) if one else None
    found["host_macs_share"] = one.host_macs / max(1, one.host_macs + one.macs) if one else None
    return found if end.accuracy is None else {**found, "accuracy": end.accuracy}


def _heat_columns(launches: Sequence[Launch]) -> Row:
    readings = [reading for launch in launches if launch.purpose == "latency" for reading in launch.readings]
    temperatures = [reading.temp_c for reading in readings if reading.temp_c is not None]
    return {
        "temp_c_start": temperatures[0] if temperatures else None,
        "temp_c_end": temperatures[-1] if temperatures else None,
        "throttled": throttled_window(readings),
    }


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_field(row[column]) for column in columns])
    return text.getvalue().encode()


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # nine digits say more than any clock does, and hide the last bits of a float
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _pairs_table(results: Results) -> str:
    labels = wording.setting_labels(cell.key for cell in results.timed)
    keys = [pair.key.network for pair in results.pairs]
    rows = [
        [
            wording.model_name(pair.key.network.model),
            wording.recipe_label(pair.key.network, keys),
            labels[wording.setting(pair.key)],
            f"{pair.theoretical_filters:.2f}",
            _number(pair.theoretical_macs),
            _number(pair.ratio.ratio if pair.ratio else None),
            wording.interval(pair.ratio, _number),
            wording.percent(pair.realised),
            pair.verdict,
        ]
        for pair in results.pairs
    ]
    head = ["Network", "Pruned", "Runtime", "Filters", "MACs", "Real", "95 % interval", "Realised", "Verdict"]
    return _booktabs(head, rows, "lllrrrlrl", "Speed-ups promised by filters and by MACs, and the real one.")


def _networks_table(results: Results) -> str:
    keys = [network.key for network in results.networks]
    rows = [
        [
            wording.model_name(network.key.model),
            network.key.variant,
            wording.recipe_label(network.key, keys),
            wording.percent(network.accuracy, 1),
            f"{network.params:,}",
            f"{network.nonzero_params:,}",
            wording.millions(network.macs),
            f"{network.onnx_bytes / 1e3:,.0f}",
        ]
        for network in results.networks
    ]
    head = ["Network", "Variant", "Pruned", "Accuracy", "Parameters", "Non-zero", "MACs (M)", "ONNX (kB)"]
    return _booktabs(head, rows, "lllrrrrr", "Accuracy and size of each network.")


def _methods_table(results: Results, compared: Sequence[MethodRow]) -> str:
    labels = wording.setting_labels(cell.key for cell in results.timed)
    settings = settings_of(compared)
    keys = [row.key for row in compared]
    rows = []
    for one in compared:
        pairs = [one.pairs.get(setting) for setting in settings]
        rows.append(
            [
                wording.model_name(one.key.model),
                wording.recipe_label(one.key, keys),
                *(wording.percent(share) for share in (one.filters_gone, one.zeros, one.parameters_gone)),
                wording.percent(one.accuracy, 1),
                wording.points(-one.lost),
                _number(next((pair.theoretical_macs for pair in pairs if pair), None)),
                *(_number(pair.ratio.ratio if pair and pair.ratio else None) for pair in pairs),
            ]
        )
    head = ["Network", "Pruned", "Filters", "Zeros", "Parameters", "Accuracy", "To dense", "MACs"]
    head += [f"Real, {labels[one]}" for one in settings]
    title = "What each method removes, what it keeps right, and the speed-up promised by MACs and real."
    return _booktabs(head, rows, "ll" + "r" * (len(head) - 2), title)


def _counts_table(counted: Sequence[CountGain], what: Counted) -> str:
    labels = target_labels(counted)
    keys = [one.key.network for one in counted]
    rows = [
        [
            wording.model_name(one.key.network.model),
            wording.recipe_label(one.key.network, keys),
            labels[wording.setting(one.key)],
            wording.millions(one.dense),
            wording.millions(one.masked),
            wording.millions(one.shrunk),
            _number(one.theoretical_macs),
            _number(one.gain),
        ]
        for one in counted
    ]
    head = ["Network", "Pruned", "Target", "Dense (M)", "Masked (M)", "Shrunk (M)", "MACs", what.capitalize()]
    how = "emulated" if what == "instructions" else "simulated"
    title = f"Millions of {what}, {how}, and how many times fewer MACs and {what} a shrunk network takes."
    return _booktabs(head, rows, "lllrrrrr", title)


def _number(value: float | None) -> str:
    return wording.UNKNOWN if value is None else f"{value:.2f}"


def _booktabs(head: Sequence[str], rows: Iterable[Sequence[str]], columns: str, title: str) -> str:
    def line(fields: Sequence[str]) -> str:
        return "  " + " & ".join(latex_escape(field) for field in fields) + r" \\"

    return "\n".join(
        [
            f"% {title} Needs \\usepackage{{booktabs}}.",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"  \toprule",
            line(head),
            r"  \midrule",
            *(line(row) for row in rows),
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
