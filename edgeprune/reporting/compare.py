"""What changed between two results folders, cell by cell. Start with `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ResultsError
from edgeprune.manifest import other_machine
from edgeprune.measuring import RatioSummary, unpaired_ratio, verdict
from edgeprune.reporting.results import Results, load
from edgeprune.schema import CellKey


@dataclass(frozen=True)
class Change:
    """One cell that both folders hold: how many times as fast it became, and what its network became."""

    key: CellKey
    ratio: RatioSummary | None
    before_ns: float
    after_ns: float
    same_network: bool

    @property
    def verdict(self) -> str:
        """ "faster", "slower", "no change" when the interval holds 1, "unknown" without an interval."""
        return verdict(self.ratio)


def compare(before: Path | str, after: Path | str, *, across_devices: bool = False) -> list[Change]:
    """The cells that ended well in both folders, with the change of their latency.

    Args:
        before: A results folder.
        after: Another.
        across_devices: Compare though a device of the same name is another machine in the second folder.

    Raises:
        ResultsError: a folder cannot be read, no cell is in both, or the devices differ and that was not asked for.
    """
    old, new = load(before), load(after)
    if not across_devices:
        _require_same_devices(old, new)
    measured = {cell.end.cell_id: cell for cell in old.cells if cell.latency}
    changes = []
    for cell in new.cells:
        former = measured.get(cell.end.cell_id)
        if former is None or former.latency is None or cell.latency is None:
            continue
        networks = [one.network.made_from if one.network else None for one in (former, cell)]
        changes.append(
            Change(
                key=cell.key,
                ratio=unpaired_ratio(former.launches, cell.launches),
                before_ns=former.latency.median,
                after_ns=cell.latency.median,
                same_network=networks[0] == networks[1],
            )
        )
    if not changes:
        raise ResultsError(f"{before} and {after} have no measured cell in common", hint="compare runs of one matrix")
    return changes


def _require_same_devices(old: Results, new: Results) -> None:
    for name in old.devices.keys() & new.devices.keys():
        differing = other_machine(old.devices[name], new.devices[name])
        if differing:
            raise ResultsError(
                f"{name} is another machine in {new.folder} than in {old.folder}: {differing}",
                hint="if that is what you want to compare, add --across-devices",
            )
