"""The tables of a run: cells.csv, pairs.csv and layers.csv for machines, two LaTeX tables (booktabs) for papers.

Columns are those of `edgeprune.schema`; what is not known stays empty, never 0. Start with `cell_row` and `pair_row`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeprune.measuring import throttled_window
from edgeprune.reporting import wording
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import CELL_COLUMNS, LAYER_COLUMNS, PAIR_COLUMNS, NetworkKey, Reading

Row = dict[str, Any]


def csv_files(results: Results) -> dict[str, bytes]:
    """The three CSV files by name, UTF-8 with a header line and \\n line ends."""
    return {
        "cells.csv": _csv(CELL_COLUMNS, [cell_row(results.manifest.run_id, cell) for cell in results.cells]),
        "pairs.csv": _csv(PAIR_COLUMNS, [pair_row(pair) for pair in results.pairs]),
        "layers.csv": _csv(LAYER_COLUMNS, layer_rows(results)),
    }


def cell_row(run_id: str, cell: CellResult) -> Row:
    """One row of cells.csv; None where a value is not known.

    Temperatures are the first and the last that were read over the cell's launches, `parity_rel` the largest of them.
    """
    key, network, latency, end = cell.key, cell.network, cell.latency, cell.end
    timed = [launch for launch in cell.launches if launch.purpose == "latency"]
    readings: list[Reading] = [reading for launch in timed for reading in launch.readings]
    temperatures = [reading.temp_c for reading in readings if reading.temp_c is not None]
    memory = [launch.peak_rss_bytes for launch in cell.launches if launch.peak_rss_bytes is not None]
    parities = [launch.parity_rel for launch in cell.launches if launch.parity_rel is not None]
    return {
        "run_id": run_id,
        "cell_id": end.cell_id,
        **_network_columns(key.network),
        "runtime": key.runtime,
        "target": key.target,
        "device": key.device,
        "threads": key.threads,
        "batch": key.batch,
        "precision": key.precision,
        "status": end.status,
        "reason": end.reason,
        "params": network.params if network else None,
        "nonzero_params": network.nonzero_params if network else None,
        "macs": network.macs if network else None,
        "accuracy": network.accuracy if network else None,
        "onnx_bytes": network.onnx_bytes if network else None,
        "compressed_bytes": network.compressed_bytes if network else None,
        "artifact_bytes": end.artifact_bytes,
        "parity_rel": max(parities, default=None),
        "latency_ns_median": latency.median if latency else None,
        "latency_ns_ci_low": latency.ci_low if latency else None,
        "latency_ns_ci_high": latency.ci_high if latency else None,
        "latency_ns_p90": latency.p90 if latency else None,
        "launches": latency.launches if latency else None,
        "samples": latency.samples if latency else None,
        "peak_rss_bytes": max(memory, default=None),
        "weights_bytes": end.weights_bytes,
        "arena_bytes": end.arena_bytes,
        "instructions": end.instructions,
        "cycles": end.cycles,
        "temp_c_start": temperatures[0] if temperatures else None,
        "temp_c_end": temperatures[-1] if temperatures else None,
        "throttled": throttled_window(readings),
        "flags": " ".join(cell.flags),
    }


def pair_row(pair: PairResult) -> Row:
    """One row of pairs.csv; None where a value is not known."""
    key, ratio = pair.key, pair.ratio
    network = _network_columns(key.network)
    del network["variant"]
    return {
        **network,
        "runtime": key.runtime,
        "device": key.device,
        "threads": key.threads,
        "batch": key.batch,
        "precision": key.precision,
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
        {**_network_columns(network.key), **layer.model_dump()}
        for network in results.networks
        for layer in network.layers
    ]


def latex_files(results: Results) -> dict[str, bytes]:
    """The LaTeX tables by file name; both need the package booktabs and stand alone inside a `table`."""
    return {"pairs.tex": _pairs_table(results).encode(), "networks.tex": _networks_table(results).encode()}


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(latex_escape("l1_norm & 50 %"))
    l1\_norm \& 50 \%
    """
    return re.sub("[" + re.escape("".join(_LATEX)) + "]", lambda found: _LATEX[found[0]], text)


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


def _network_columns(key: NetworkKey) -> Row:
    return {
        "model": key.model,
        "dataset": key.dataset,
        "method": key.method,
        "pruning_ratio": key.pruning_ratio,
        "seed": key.seed,
        "variant": key.variant,
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
    labels = wording.setting_labels(cell.key for cell in results.cells)
    keys = [pair.key.network for pair in results.pairs]
    rows = []
    for pair in results.pairs:
        ratio = pair.ratio
        interval = (
            f"[{ratio.ci_low:.2f}, {ratio.ci_high:.2f}]"
            if ratio and ratio.ci_low and ratio.ci_high
            else wording.UNKNOWN
        )
        rows.append(
            [
                wording.model_name(pair.key.network.model),
                wording.recipe_label(pair.key.network, keys),
                labels[wording.setting(pair.key)],
                f"{pair.theoretical_filters:.2f}",
                _number(pair.theoretical_macs, 2),
                _number(ratio.ratio if ratio else None, 2),
                interval,
                wording.percent(pair.realised),
                pair.verdict,
            ]
        )
    head = ["Network", "Pruned", "Runtime", "Filters", "MACs", "Real", "95 % interval", "Realised", "Verdict"]
    return _booktabs(head, rows, "lllrrrlrl", "Speed-ups promised by filters and by MACs, and the real one.")


def _networks_table(results: Results) -> str:
    keys = [network.key for network in results.networks if network.key.variant != "dense"]
    rows = [
        [
            wording.model_name(network.key.model),
            network.key.variant,
            wording.UNKNOWN if network.key.variant == "dense" else wording.recipe_label(network.key, keys),
            wording.percent(network.accuracy, 1),
            f"{network.params:,}",
            f"{network.nonzero_params:,}",
            f"{network.macs / 1e6:.3g}",
            f"{network.onnx_bytes / 1e3:,.0f}",
        ]
        for network in results.networks
    ]
    head = ["Network", "Variant", "Pruned", "Accuracy", "Parameters", "Non-zero", "MACs (M)", "ONNX (kB)"]
    return _booktabs(head, rows, "lllrrrrr", "Accuracy and size of each network.")


def _number(value: float | None, digits: int) -> str:
    return wording.UNKNOWN if value is None else f"{value:.{digits}f}"


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
