"""A whole run: read the matrix, make what is missing, measure what is missing. Start with `run`.

The journal is the only memory: what it holds is finished, everything else is to do. The same call again goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import compiling, transport
from edgeprune import manifest as manifests
from edgeprune.errors import EdgepruneError, ResultsError
from edgeprune.journal import Journal
from edgeprune.manifest import Manifest
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.cells import cells, groups, networks
from edgeprune.matrix.launch import deploy, now
from edgeprune.matrix.manifest import installed_versions, open_manifest
from edgeprune.matrix.measure import Bench, CellWork, left_to_do, measure_group, told
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.pool import Prepared, identity, prepare_all
from edgeprune.matrix.progress import RunProgress
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.matrix.stages import INPUT_FILE, NETWORK_FILE, REFERENCE_FILE, NetworkJob, Task
from edgeprune.resources import cache_folder
from edgeprune.schema import CellEnd, CellKey, DeviceFacts, Launch, Network, NetworkKey, Session
from edgeprune.transport import Transport

_LAUNCH_OVERHEAD_SECONDS = 1.0
_LEASE_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the folder, and the ends of the cells of the matrix."""

    folder: Path
    ends: tuple[CellEnd, ...]

    def count(self, status: str) -> int:
        """How many cells ended in this way."""
        return sum(end.status == status for end in self.ends)


def run(spec: MatrixSpec, folder: Path, progress: RunProgress, command: Sequence[str] = ()) -> Outcome:
    """Carry out a matrix in a results folder, going on where an earlier run stopped.

    Raises:
        ResultsError: the folder is in use, or holds a run that cannot be mixed with this one.
        StorageError: the disk is full; what was measured is kept.
        DeviceError: a device cannot be reached at all.
    """
    with Journal.open(folder) as writer:
        memory = Memory(folder, writer)
        for problem in memory.problems:
            progress.say(problem)
        keys = cells(spec)
        manifest = open_manifest(folder, spec, keys)
        to_do = [key for key in keys if not memory.is_finished(key)]
        if to_do:
            _Run(spec, folder, progress, memory, manifest).carry_out(keys, to_do, command)
        return Outcome(folder, tuple(memory.ends[key.cell_id] for key in keys if key.cell_id in memory.ends))


class _Run:
    """One invocation's work on one results folder."""

    def __init__(
        self, spec: MatrixSpec, folder: Path, progress: RunProgress, memory: Memory, manifest: Manifest
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._progress = progress
        self._memory = memory
        self._manifest = manifest
        self._session_id = f"{now()}-{secrets.token_hex(2)}"
        self._cache = Cache(cache_folder())
        self._planned = {network.key: network for network in networks(spec)}

    def carry_out(self, keys: Sequence[CellKey], to_do: Sequence[CellKey], command: Sequence[str]) -> None:
        """Make, then measure, the cells that are left, device after device."""
        session = Session(
            session_id=self._session_id,
            started_at=now(),
            command=list(command),
            versions=installed_versions(),
            host={"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        )
        self._memory.append(session)
        done = len(keys) - len(to_do)
        self._progress.say(f"{self._spec.name}: {len(keys)} cells, {done} done, {len(to_do)} left; in {self._folder}")
        made = self._prepare(keys, to_do)
        for device in self._spec.devices:
            with contextlib.closing(transport.connect(device)) as way:
                self._measure_device(way, keys, [key for key in to_do if key.device == device], made)

    # --- preparing ----------------------------------------------------------------------------------------------------

    def _prepare(self, keys: Sequence[CellKey], to_do: Sequence[CellKey]) -> Mapping[str, Prepared]:
        """Make every artifact that is needed, and write down the networks; cells that cannot be made end as failed."""
        models = {key.network.model for key in to_do}
        # finished networks are asked for too (they are in the cache): what is left must be made as they were
        related = [key for key in keys if key.network.model in models]
        tasks = [self._network_task(key) for key in related] + [self._artifact_task(key) for key in to_do]
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        made = prepare_all(tasks, self._cache.root, logs, self._progress)
        for key in {key.network: key for key in related if key.batch == min(self._spec.batch)}.values():
            self._write_network(key, made[identity(self._network_task(key))])
        for key in to_do:
            result = made[identity(self._artifact_task(key))]
            if result.folder is None:
                self._give_up(key, "failed", result.reason)
        return made

    def _write_network(self, key: CellKey, result: Prepared) -> None:
        if result.folder is None:
            return
        facts = json.loads((result.folder / NETWORK_FILE).read_text())
        facts.pop("input_shape")
        record = Network(session_id=self._session_id, key=key.network, **facts)
        known = self._memory.networks.get(key.network)
        if known is not None and known.made_from == record.made_from:
            return
        if known is not None and any(self._memory.launches.get(cell_id) for cell_id in self._cells_of(key.network)):
            raise ResultsError(
                f"{self._folder}: {key.network.model} {key.network.variant} was measured there as another version of "
                "edgeprune, of a library or of the model made it",
                hint="finish it with that version, or measure anew into another folder with --results DIR",
            )
        self._memory.append(record)

    def _cells_of(self, network: NetworkKey) -> list[str]:
        return [key.cell_id for key in cells(self._spec) if key.network == network]

    def _job(self, key: CellKey) -> NetworkJob:
        planned = self._planned[key.network]
        return NetworkJob(
            model=planned.model,
            dataset=self._spec.data,
            seed=key.network.seed,
            variant=key.network.variant,
            recipe=planned.recipe,
            train=self._spec.train.changes(),
            finetune=self._spec.finetune.changes(),
        )

    def _network_task(self, key: CellKey) -> Task:
        return Task("network", self._job(key), key.batch)

    def _artifact_task(self, key: CellKey) -> Task:
        return Task("artifact", self._job(key), key.batch, key.runtime, key.target, key.threads)

    # --- measuring ----------------------------------------------------------------------------------------------------

    def _measure_device(
        self, way: Transport, keys: Sequence[CellKey], to_do: Sequence[CellKey], made: Mapping[str, Prepared]
    ) -> None:
        facts = way.facts()
        self._memory.append(DeviceFacts(session_id=self._session_id, device=way.name, facts=facts))
        devices = {**self._manifest.devices, way.name: facts}
        self._manifest = self._manifest.model_copy(update={"devices": devices})
        manifests.write(self._folder, self._manifest)
        cores = _fastest_first(facts)
        work = []
        for group in groups([key for key in keys if key.device == way.name]):
            left = [key for key in group if key in to_do and made[identity(self._artifact_task(key))].folder]
            if left and left[0].threads > len(cores):
                for key in left:
                    self._give_up(key, "skipped", f"{key.threads} threads, and {way.name} has {len(cores)} cores")
            elif left:
                steps = left_to_do(group, self._memory.launches, self._spec.plan, self._manifest.seed)
                work.append((left, [step for step in steps if step.cell_id in {key.cell_id for key in left}]))
        if not work:
            return
        self._wait_for_device(way)
        clock = _Clock(self._spec.plan.seconds + self._spec.plan.warmup_seconds, sum(len(steps) for _, steps in work))
        bench = self._bench(way, facts, cores, keys, clock)
        for left, steps in work:
            deployed = [one for key in left if (one := self._deploy(way, key, made)) is not None]
            present = {one.cell_id for one in deployed}
            measure_group(bench, deployed, [step for step in steps if step.cell_id in present], self._spec.plan)

    def _bench(
        self, way: Transport, facts: Mapping[str, Any], cores: Sequence[int], keys: Sequence[CellKey], clock: _Clock
    ) -> Bench:
        def tell(key: CellKey, doing: str) -> None:
            ended = sum(one.cell_id in self._memory.ends for one in keys)
            self._progress.measuring(key, doing, (ended, len(keys)), clock.seconds_left())

        def write(record: Launch | CellEnd) -> None:
            self._memory.append(record)
            if isinstance(record, CellEnd):
                self._progress.ended(record)
            elif record.purpose == "latency":
                clock.one_done()

        def cores_for(threads: int) -> list[int] | None:
            return list(cores[:threads]) if facts["pinning"] else None

        return Bench(way, self._session_id, cores_for, facts["temp_c"], write, tell)

    def _wait_for_device(self, way: Transport) -> None:
        if way.acquire():
            return
        self._progress.say(f"{way.name}: another run is measuring on it; waiting until it is free (Ctrl-C stops)")
        while not way.acquire():
            time.sleep(_LEASE_POLL_SECONDS)

    def _deploy(self, way: Transport, key: CellKey, made: Mapping[str, Prepared]) -> CellWork | None:
        """Push a cell's files; None, and the cell failed, where that is impossible."""
        network = made[identity(self._network_task(key))].folder
        folder = made[identity(self._artifact_task(key))].folder
        if network is None or folder is None:
            return None
        shape = json.loads((network / NETWORK_FILE).read_text())["input_shape"]
        example = np.fromfile(network / INPUT_FILE, dtype="float32").reshape(shape)
        artifact = compiling.load_artifact(folder)
        try:
            deployed = deploy(way, artifact, network / INPUT_FILE, example, np.load(network / REFERENCE_FILE))
        except EdgepruneError as error:
            self._give_up(key, "failed", told(error))
            return None
        launches = list(self._memory.launches.get(key.cell_id, ()))
        return CellWork(key, deployed, artifact, launches)

    def _give_up(self, key: CellKey, status: str, reason: str) -> None:
        end = CellEnd.model_validate(
            {
                "session_id": self._session_id,
                "cell_id": key.cell_id,
                "key": key,
                "status": status,
                "reason": reason,
            }
        )
        self._memory.append(end)
        self._progress.ended(end)


class _Clock:
    """How long the launches that are left will take, by the ones made so far."""

    def __init__(self, expected_seconds: float, left: int) -> None:
        self._expected = expected_seconds + _LAUNCH_OVERHEAD_SECONDS
        self._left = left
        self._done = 0
        self._began = time.monotonic()

    def one_done(self) -> None:
        self._done += 1

    def seconds_left(self) -> float:
        each = (time.monotonic() - self._began) / self._done if self._done else self._expected
        return each * max(0, self._left - self._done)


def _fastest_first(facts: Mapping[str, Any]) -> list[int]:
    """The device's cores, fastest cluster first; among equals the last first, since the first serve interrupts."""
    cores: Iterator[dict[str, Any]] = iter(facts["cores"])
    ranked = sorted(cores, key=lambda core: (core["capacity"] or 0, core["max_khz"] or 0, core["core"]), reverse=True)
    return [int(core["core"]) for core in ranked]
