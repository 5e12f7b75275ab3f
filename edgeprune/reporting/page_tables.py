"""The tables of report.html as fields to show and to sort by. Start with `pairs_table`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeprune.measuring import LatencySummary, RatioSummary
from edgeprune.reporting import wording
from edgeprune.reporting.counts import Counted, CountGain, gains, target_labels
from edgeprune.reporting.methods import MethodRow, method_rows, settings_of
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import Network, NetworkKey


@dataclass(frozen=True)
class Field:
    """One field of a table: what is shown, what it sorts by ("" sorts last), and a class for its look."""

    text: str
    key: str = ""
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts by a click: `numeric` says of each column whether it holds numbers."""

    name: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Field, ...], ...]


def pairs_table(results: Results) -> Table:
    """Promised against real speed-up, a row a pair."""
    labels = wording.setting_labels(cell.key for cell in results.timed)
    keys = [pair.key.network for pair in results.pairs]

    def row(pair: PairResult) -> tuple[Field, ...]:
        ratio, key = pair.ratio, pair.key.network
        return (
            _text(wording.model_name(key.model)),
            _recipe(key, keys),
            _text(labels[wording.setting(pair.key)]),
            _number(pair.theoretical_filters, wording.times),
            _number(pair.theoretical_macs, wording.times),
            _number(ratio.ratio if ratio else None, wording.times, "strong"),
            _interval(ratio, "{:.2f}".format),
            _number(pair.realised, wording.percent),
            Field(pair.verdict, pair.verdict, "verdict " + pair.verdict.replace(" ", "-")),
        )

    columns = ("Network", "Pruned", "Runtime", "By filters", "By MACs", "Real", "95 % interval", "Realised", "Verdict")
    numeric = (False, True, False, True, True, True, True, True, False)
    return Table("Pairs", columns, numeric, tuple(row(pair) for pair in results.pairs))


def methods_table(results: Results) -> Table:
    """What each recipe left, and what of its promise is real, a row a recipe; empty where one method is all."""
    rows = method_rows(results)
    labels = wording.setting_labels(cell.key for cell in results.timed)
    settings = settings_of(rows)
    # a runtime that all share would only widen the table
    wheres = [f", {labels[one]}" for one in settings] if len(settings) > 1 else [""] * len(settings)
    keys = [row.key for row in rows]

    def row(one: MethodRow) -> tuple[Field, ...]:
        pairs = [one.pairs.get(setting) for setting in settings]
        promised = next((pair.theoretical_macs for pair in pairs if pair), None)
        real = [pair.ratio.ratio if pair and pair.ratio else None for pair in pairs]
        return (
            _text(wording.model_name(one.key.model)),
            _recipe(one.key, keys),
            *(_number(share, wording.percent) for share in (one.filters_gone, one.zeros, one.parameters_gone)),
            _number(one.accuracy, lambda accuracy: wording.percent(accuracy, 1)),
            _number(-one.lost, wording.points, "" if one.keeps else "strong"),
            _number(promised, wording.times),
            *(_number(ratio, wording.times, "strong") for ratio in real),
            *(_number(pair.realised if pair else None, wording.percent) for pair in pairs),
        )

    columns = (
        "Network", "Pruned", "Filters gone", "Zeros", "Parameters gone", "Accuracy", "To dense (points)", "By MACs",
        *(word + where for word in ("Real", "Realised") for where in wheres),
    )  # fmt: skip
    numeric = (False, *[True] * (len(columns) - 1))
    return Table("Methods", columns, numeric, tuple(map(row, rows)))


def instructions_table(results: Results) -> Table:
    """Instructions of dense, masked and shrunk networks under emulation, a row a shrunk network that was counted."""
    return _counts_table(results, "instructions")


def cycles_table(results: Results) -> Table:
    """Cycles of dense, masked and shrunk networks on simulated accelerators, a row a shrunk network."""
    return _counts_table(results, "cycles")


def _counts_table(results: Results, what: Counted) -> Table:
    counted = gains(results, what)
    labels = target_labels(counted)
    keys = [one.key.network for one in counted]

    def row(one: CountGain) -> tuple[Field, ...]:
        return (
            _text(wording.model_name(one.key.network.model)),
            _recipe(one.key.network, keys),
            _text(labels[wording.setting(one.key)]),
            _number(one.dense, wording.millions),
            _number(one.masked, wording.millions),
            _number(one.shrunk, wording.millions),
            _number(one.theoretical_macs, wording.times),
            _number(one.gain, wording.times, "strong"),
        )

    columns = (
        "Network", "Pruned", "Target", "Dense (millions)", "Masked (millions)", "Shrunk (millions)", "Fewer MACs",
        f"Fewer {what}",
    )  # fmt: skip
    numeric = (False, True, False, True, True, True, True, True)
    return Table(what.capitalize(), columns, numeric, tuple(row(one) for one in counted))


def accelerator_table(results: Results) -> Table:
    """What one inference takes on simulated accelerators, a row a cell; layer by layer it is in cycles.csv."""
    cells = [cell for cell in results.cells if cell.end.accelerated is not None]
    labels = wording.setting_labels((cell.key for cell in cells), shared_runtime=False)
    keys = [cell.key.network for cell in cells]

    def row(cell: CellResult) -> tuple[Field, ...]:
        one, key = cell.end.accelerated, cell.key.network
        assert one is not None
        stalls, cycles = sum(one.stalls.values()), cell.end.cycles
        return (
            _text(wording.model_name(key.model)),
            _text(key.variant),
            _recipe(key, keys),
            _text(labels[wording.setting(cell.key)]),
            _number(cell.end.accuracy, lambda accuracy: wording.percent(accuracy, 1)),
            _number(cycles, "{:,}".format, "strong"),
            _number(cell.end.array_utilisation, wording.percent),
            _number(stalls / cycles if cycles else None, wording.percent),
            _number(_nanoseconds(results, cell, "fmax_mhz"), wording.millions),
            _number(_nanoseconds(results, cell, "assumed_clock_mhz"), wording.millions),
            _number(one.bytes_read + one.bytes_written, wording.byte_size),
            _number(len(one.host_nodes) / max(1, one.nodes), wording.percent),
            _number(one.host_macs / max(1, one.host_macs + one.macs), wording.percent),
        )

    columns = (
        "Network", "Variant", "Pruned", "Array", "int8 accuracy", "Cycles", "Array used", "Stalls",
        "ms at the clock routed", "ms at an assumed clock", "Moved", "Nodes on the host", "MACs on the host",
    )  # fmt: skip
    numeric = (False, False, True, False, *[True] * 9)
    return Table("Accelerator", columns, numeric, tuple(row(cell) for cell in cells))


def _nanoseconds(results: Results, cell: CellResult, clock: str) -> float | None:
    """Nanoseconds that the cycles are at a clock of the device's facts: on paper, measured by nobody."""
    megahertz = results.devices.get(cell.key.device, {}).get(clock)
    return None if megahertz is None or cell.end.cycles is None else 1e3 * cell.end.cycles / megahertz


def cells_table(results: Results) -> Table:
    """Latency and memory, a row a cell that ended; instructions where an emulated device counted some."""
    counts = any(cell.end.instructions is not None for cell in results.cells)
    labels = wording.setting_labels(cell.key for cell in results.cells)
    keys = [cell.key.network for cell in results.cells]

    def row(cell: CellResult) -> tuple[Field, ...]:
        key, latency = cell.key.network, cell.latency
        return (
            _text(wording.model_name(key.model)),
            _text(key.variant),
            _recipe(key, keys),
            _text(labels[wording.setting(cell.key)]),
            Field(cell.end.status, cell.end.status, "status " + cell.end.status),
            _number(latency.median if latency else None, wording.millions, "strong"),
            _interval(latency, wording.millions),
            _number(max((one.peak_rss_bytes or 0 for one in cell.launches), default=0) or None, wording.byte_size),
            _number(cell.end.artifact_bytes, wording.byte_size),
            *([_number(cell.end.instructions, "{:,}".format)] if counts else []),
            Field(", ".join(cell.flags) or wording.UNKNOWN, " ".join(cell.flags), "earned"),
        )

    columns = (
        "Network", "Variant", "Pruned", "Runtime", "Status", "Latency (ms)", "95 % interval (ms)", "Peak memory",
        "Program", *(["Instructions"] if counts else []), "Flags",
    )  # fmt: skip
    numeric = (False, False, True, False, False, *[True] * (5 if counts else 4), False)
    return Table("Cells", columns, numeric, tuple(row(cell) for cell in results.cells))


def networks_table(results: Results) -> Table:
    """Accuracy and size, a row a network."""
    keys = [network.key for network in results.networks]

    def row(network: Network) -> tuple[Field, ...]:
        return (
            _text(wording.model_name(network.key.model)),
            _text(network.key.variant),
            _recipe(network.key, keys),
            _number(network.accuracy, lambda accuracy: wording.percent(accuracy, 1)),
            _number(network.params, "{:,}".format),
            _number(network.nonzero_params, "{:,}".format),
            _number(network.macs, "{:,}".format),
            _number(network.onnx_bytes, wording.byte_size),
            _number(network.compressed_bytes, wording.byte_size),
        )

    columns = ("Network", "Variant", "Pruned", "Accuracy", "Parameters", "Non-zero", "MACs", "ONNX", "Compressed")
    numeric = (False, False, True, True, True, True, True, True, True)
    return Table("Networks", columns, numeric, tuple(row(network) for network in results.networks))


def _text(text: str) -> Field:
    return Field(text, text)


def _number(value: float | None, write: Callable[[float], str], look: str = "") -> Field:
    return Field(wording.UNKNOWN, look=look) if value is None else Field(write(value), repr(value), look)


def _recipe(key: NetworkKey, among: Sequence[NetworkKey]) -> Field:
    ratio = key.pruning_ratio
    return Field(wording.recipe_label(key, among), "" if ratio is None else repr(ratio))


def _interval(summary: LatencySummary | RatioSummary | None, write: Callable[[float], str]) -> Field:
    """Both ends of an interval; it sorts by the lower one."""
    low = summary.ci_low if summary else None
    return Field(wording.interval(summary, write), "" if low is None else repr(low))
