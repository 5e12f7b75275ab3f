"""What pruning gains in instructions, from cells where they were counted: dense, masked and shrunk beside each other.

Such cells have no latency, so that they are in no pair and in no answer. Start with `gains`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.measuring import theoretical_speedup_macs
from edgeprune.reporting import wording
from edgeprune.reporting.results import CellResult, Results
from edgeprune.schema import CellKey, Variant


@dataclass(frozen=True)
class InstructionGain:
    """A pruned network on an emulated device: instructions of one inference of its three forms, None where not counted.

    `key` is that of the shrunk cell, `theoretical_macs` MACs(dense) / MACs(shrunk).
    """

    key: CellKey
    theoretical_macs: float | None
    dense: int | None
    masked: int | None
    shrunk: int

    @property
    def gain(self) -> float | None:
        """instructions(dense) / instructions(shrunk)."""
        return self.dense / self.shrunk if self.dense else None

    @property
    def masked_gain(self) -> float | None:
        """instructions(dense) / instructions(masked)."""
        return self.dense / self.masked if self.dense and self.masked else None


def gains(results: Results) -> list[InstructionGain]:
    """Every shrunk network whose instructions were counted, in the order of the matrix."""
    found = []
    for cell in results.cells:
        shrunk, network = cell.end.instructions, cell.key.network
        if network.variant != "shrunk" or not shrunk:
            continue
        dense = results.dense(network)
        promised = theoretical_speedup_macs(dense.macs, cell.network.macs) if dense and cell.network else None
        found.append(
            InstructionGain(cell.key, promised, _count(results, cell, "dense"), _count(results, cell, "masked"), shrunk)
        )
    return found


def target_labels(counted: Sequence[InstructionGain]) -> dict[wording.Setting, str]:
    """A label for each setting: the target that its code is for, and what else differs between them."""
    bare = {wording.setting(one.key): one.key.model_copy(update={"device": "", "target": ""}) for one in counted}
    rest = wording.setting_labels(bare.values(), shared_runtime=False)
    targets = {wording.setting(one.key): one.key.target for one in counted}
    return {one: ", ".join(filter(None, [targets[one], rest[wording.setting(bare[one])]])) for one in bare}


def _count(results: Results, shrunk: CellResult, variant: Variant) -> int | None:
    """Instructions of another form of the network on the same setting; a dense one of another seed will do."""
    wanted = shrunk.key.network
    alike = [
        cell
        for cell in results.cells
        if cell.end.instructions
        and wording.setting(cell.key) == wording.setting(shrunk.key)
        and (cell.key.network.model, cell.key.network.dataset) == (wanted.model, wanted.dataset)
        and cell.key.network.variant == variant
    ]
    if variant == "dense":
        alike.sort(key=lambda cell: cell.key.network.seed != wanted.seed)
    else:
        alike = [cell for cell in alike if cell.key.network == wanted.model_copy(update={"variant": variant})]
    return alike[0].end.instructions if alike else None
