"""What pruning gains in instructions, or in an accelerator's cycles: dense, masked and shrunk beside each other.

Such cells have no latency, so that they are in no pair and in no answer. Start with `gains`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.measuring import theoretical_speedup_macs
from edgeprune.reporting import wording
from edgeprune.reporting.results import CellResult, Results
from edgeprune.schema import CellKey, Variant

Counted = Literal["instructions", "cycles"]
"""What is counted of one inference where nothing is timed: on emulated devices, and on simulated accelerators."""


@dataclass(frozen=True)
class CountGain:
    """A pruned network on such a device: the counts of its three forms, None where not counted.

    `key` is that of the shrunk cell, `theoretical_macs` MACs(dense) / MACs(shrunk).
    """

    key: CellKey
    theoretical_macs: float | None
    dense: int | None
    masked: int | None
    shrunk: int

    @property
    def gain(self) -> float | None:
        """count(dense) / count(shrunk)."""
        return self.dense / self.shrunk if self.dense else None

    @property
    def masked_gain(self) -> float | None:
        """count(dense) / count(masked)."""
        return self.dense / self.masked if self.dense and self.masked else None


def gains(results: Results, what: Counted = "instructions") -> list[CountGain]:
    """Every shrunk network that was counted, in the order of the matrix."""
    found = []
    for cell in results.cells:
        shrunk, network = count_of(cell, what), cell.key.network
        if network.variant != "shrunk" or not shrunk:
            continue
        dense = results.dense(network)
        promised = theoretical_speedup_macs(dense.macs, cell.network.macs) if dense and cell.network else None
        dense_count, masked = (_count(results, cell, variant, what) for variant in _OTHERS)
        found.append(CountGain(cell.key, promised, dense_count, masked, shrunk))
    return found


def target_labels(counted: Sequence[CountGain]) -> dict[wording.Setting, str]:
    """A label for each setting: the target (or core) that its code is for, and what else differs between them."""
    bare = {wording.setting(one.key): one.key.model_copy(update={"device": "", "target": ""}) for one in counted}
    rest = wording.setting_labels(bare.values(), shared_runtime=False)
    targets = {wording.setting(one.key): one.key.target for one in counted}
    return {one: ", ".join(filter(None, [targets[one], rest[wording.setting(bare[one])]])) for one in bare}


def count_of(cell: CellResult, what: Counted) -> int | None:
    """What was counted of a cell."""
    return cell.end.instructions if what == "instructions" else cell.end.cycles


_OTHERS: tuple[Variant, Variant] = ("dense", "masked")


def _count(results: Results, shrunk: CellResult, variant: Variant, what: Counted) -> int | None:
    """The count of another form of the network on the same setting; a dense one of another seed will do."""
    wanted = shrunk.key.network
    alike = [
        cell
        for cell in results.cells
        if count_of(cell, what)
        and wording.setting(cell.key) == wording.setting(shrunk.key)
        and (cell.key.network.model, cell.key.network.dataset) == (wanted.model, wanted.dataset)
        and cell.key.network.variant == variant
    ]
    if variant == "dense":
        alike.sort(key=lambda cell: cell.key.network.seed != wanted.seed)
    else:
        alike = [cell for cell in alike if cell.key.network == wanted.model_copy(update={"variant": variant})]
    return count_of(alike[0], what) if alike else None
