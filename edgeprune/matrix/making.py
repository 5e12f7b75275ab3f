"""From a cell to the stages that make it: which network, which artifact, by which recipe. Start with `Making`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeprune.matrix.cells import networks
from edgeprune.matrix.pool import Prepared, identity
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.matrix.tasks import NetworkJob, Task
from edgeprune.schema import CellKey


class Making:
    """The tasks of one matrix's cells."""

    def __init__(self, spec: MatrixSpec) -> None:
        self._spec = spec
        self._planned = {network.key: network for network in networks(spec)}

    def network(self, key: CellKey) -> Task:
        """What builds the network of a cell."""
        return Task("network", self._job(key), key.batch)

    def quantised(self, key: CellKey) -> Task:
        """What makes its int8 form."""
        return Task("quantised", self._job(key), key.batch)

    def artifact(self, key: CellKey) -> Task:
        """What compiles it for the cell's runtime and target."""
        return Task("artifact", self._job(key), key.batch, key.runtime, key.target, key.threads)

    def _job(self, key: CellKey) -> NetworkJob:
        planned = self._planned[key.network]
        shrink = self._spec.shrink.changes()
        if planned.recipe is not None and planned.recipe.align is not None:
            shrink = {**shrink, "align": planned.recipe.align}
        return NetworkJob(
            model=planned.model,
            dataset=self._spec.data_of(planned.model),
            seed=key.network.seed,
            variant=key.network.variant,
            recipe=planned.recipe,
            train=self._spec.train.changes(),
            finetune=self._spec.finetune.changes(),
            shrink=shrink if key.network.variant == "shrunk" else {},
        )


class Made:
    """The folders of what was made for one matrix's cells."""

    def __init__(self, making: Making, results: Mapping[str, Prepared]) -> None:
        self._making = making
        self._results = results

    def network(self, key: CellKey) -> Prepared:
        """What came of building a cell's network."""
        return self._results[identity(self._making.network(key))]

    def quantised(self, key: CellKey) -> Prepared:
        """What came of quantising it."""
        return self._results[identity(self._making.quantised(key))]

    def artifact(self, key: CellKey) -> Prepared:
        """What came of compiling it."""
        return self._results[identity(self._making.artifact(key))]

    def folders(self, key: CellKey) -> tuple[Path, Path] | None:
        """The folders of a cell's network and artifact, None where one could not be made."""
        network, artifact = self.network(key).folder, self.artifact(key).folder
        return None if network is None or artifact is None else (network, artifact)
