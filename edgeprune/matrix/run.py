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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import compiling, transport
from edgeprune import manifest as manifests
from edgeprune.emulation import Emulator
from edgeprune.errors import DeviceError, EdgepruneError, ResultsError
from edgeprune.journal import Journal
from edgeprune.manifest import Manifest, other_machine
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.cells import cells, groups, unit
from edgeprune.matrix.device import Clock, DeviceInUse, idle_temp_c
from edgeprune.matrix.emulated import count_cell, emulator_for, facts_of
from edgeprune.matrix.launch import deploy, now
from edgeprune.matrix.making import Making
from edgeprune.matrix.manifest import installed_versions, open_manifest, require_same_making
from edgeprune.matrix.measure import Bench, CellWork, end_of, left_to_do, measure_group, told
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.pool import Prepared, identity, prepare_all
from edgeprune.matrix.progress import RunProgress
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.matrix.stages import INPUT_FILE, NETWORK_FILE, REFERENCE_FILE
from edgeprune.matrix.targets import Targets, find_targets
from edgeprune.resources import cache_folder
from edgeprune.schema import CellEnd, CellKey, DeviceFacts, Launch, Network, NetworkKey, Session
from edgeprune.storage import storage_error
from edgeprune.transport import Transport

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

    What goes wrong with one network or one device fails its cells and nothing else.

    Raises:
        ResultsError: the folder is in use, or holds a run that cannot be mixed with this one.
        StorageError: the disk is full; what was measured is kept.
    """
    with Journal.open(folder) as writer:
        memory = Memory(folder, writer, spec.plan)
        for problem in memory.problems:
            progress.say(problem)
        targets = find_targets(spec, folder)
        keys = cells(spec, targets.by_device)
        manifest = open_manifest(folder, spec, keys)
        to_do = memory.to_do(keys)
        if to_do:
            if memory.launches:
                require_same_making(folder, manifest)
            _Run(spec, folder, progress, memory, manifest, targets).carry_out(keys, to_do, command)
        return Outcome(folder, tuple(memory.ends[key.cell_id] for key in keys if key.cell_id in memory.ends))


class _Run:
    """One invocation's work on one results folder."""

    def __init__(
        self,
        spec: MatrixSpec,
        folder: Path,
        progress: RunProgress,
        memory: Memory,
        manifest: Manifest,
        targets: Targets,
    ) -> None:
        self._spec = spec
        self._targets = targets
        self._folder = folder
        self._progress = progress
        self._memory = memory
        self._manifest = manifest
        self._session_id = f"{now()}-{secrets.token_hex(2)}"
        self._cache = Cache(cache_folder())
        self._making = Making(spec)

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
        left = sum(not self._memory.is_finished(key) for key in keys)
        words = f"{len(keys)} cells, {len(keys) - left} done, {left} left"
        self._progress.say(f"{self._spec.name}: {words}; in {self._folder}")
        with contextlib.ExitStack() as open_devices:
            wanted = {key.device: key.is_emulated for key in to_do}
            emulators = {name: self._emulator(name, to_do) for name, is_emulated in wanted.items() if is_emulated}
            to_do = [key for key in to_do if emulators.get(key.device, True)]
            reached = [name for name, is_emulated in wanted.items() if not is_emulated]
            devices = [device for name in reached if (device := self._open(name, to_do, open_devices))]
            to_do = [key for key in to_do if key.target]  # nothing can be compiled for a device that nobody knows
            made = self._prepare(keys, to_do)
            for device in devices:
                self._measure_device(device, keys, [key for key in to_do if key.device == device.way.name], made)
            for name, emulator in emulators.items():
                if emulator is not None:
                    self._count_on(emulator, keys, [key for key in to_do if key.device == name], made)

    def _open(self, name: str, to_do: Sequence[CellKey], open_devices: contextlib.ExitStack) -> DeviceInUse | None:
        """Reach a device while everything is still cool; one that cannot be reached fails its own cells only."""
        try:
            if name in self._targets.problems:
                raise self._targets.problems[name]
            device = next(one for one in self._spec.devices if one.name == name)
            way = open_devices.enter_context(contextlib.closing(transport.connect(device)))
            if way.is_this_machine:
                self._wait_for_device(way)  # preparing here would disturb another run's measurement
            facts = way.facts()
        except DeviceError as error:
            for key in self._left_on(name, to_do):
                self._give_up(key, "failed", told(error))
            return None
        known = self._manifest.devices.get(name)
        differing = other_machine(known, facts) if known and self._memory.launches else ""
        if differing:
            raise ResultsError(
                f"{self._folder}: {name} is another machine than the one measured there ({differing})",
                hint="go on where it was begun, or measure into another folder with --results DIR",
            )
        self._write_device(name, facts)
        return DeviceInUse(way, facts, idle_temp_c(known, facts))

    def _emulator(self, name: str, to_do: Sequence[CellKey]) -> Emulator | None:
        """The emulator of an emulated device; where it is not here, the device's cells are skipped."""
        try:
            emulator = emulator_for(name)
            facts = facts_of(name, emulator)
        except DeviceError as error:
            self._progress.say(f"skipped: every cell on {name}: {told(error)}")
            for key in self._left_on(name, to_do):
                self._memory.append(end_of(self._session_id, key, status="skipped", reason=told(error)))
            return None
        self._write_device(name, facts)
        return emulator

    def _left_on(self, device: str, to_do: Sequence[CellKey]) -> list[CellKey]:
        """The cells of a device that are not finished; `to_do` holds their finished partners too."""
        return [key for key in to_do if key.device == device and not self._memory.is_finished(key)]

    def _write_device(self, name: str, facts: dict[str, Any]) -> None:
        self._memory.append(DeviceFacts(session_id=self._session_id, device=name, facts=facts))
        devices = {**self._manifest.devices, name: facts}
        self._manifest = self._manifest.model_copy(update={"devices": devices})
        manifests.write(self._folder, self._manifest)

    # --- preparing ----------------------------------------------------------------------------------------------------

    def _prepare(self, keys: Sequence[CellKey], to_do: Sequence[CellKey]) -> Mapping[str, Prepared]:
        """Make every artifact that is needed, and write down the networks; cells that cannot be made end as failed."""
        models = {key.network.model for key in to_do}
        # finished networks are asked for too (they are in the cache): what is left must be made as they were
        related = [key for key in keys if key.network.model in models]
        tasks = [self._making.network(key) for key in related] + [self._making.artifact(key) for key in to_do]
        logs = self._folder / "logs"
        try:
            logs.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, logs) from error
        made = prepare_all(tasks, self._cache, logs, self._progress)
        for key in {key.network: key for key in related if key.batch == min(self._spec.batch)}.values():
            self._write_network(key, made[identity(self._making.network(key))])
        for key in to_do:
            result = made[identity(self._making.artifact(key))]
            if result.folder is None and not self._memory.is_finished(key):
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
        return [key.cell_id for key in cells(self._spec, self._targets.by_device) if key.network == network]

    # --- measuring ----------------------------------------------------------------------------------------------------

    def _measure_device(
        self, device: DeviceInUse, keys: Sequence[CellKey], to_do: Sequence[CellKey], made: Mapping[str, Prepared]
    ) -> None:
        work = []
        for group in groups([key for key in to_do if made[identity(self._making.artifact(key))].folder]):
            if group[0].threads > len(device.cores):
                for key in group:
                    words = f"{key.threads} threads, and {device.way.name} has {len(device.cores)} cores"
                    self._give_up(key, "skipped", words)
                continue
            open_units = {unit(key) for key in group if not self._memory.is_finished(key)}
            left = [key for key in group if unit(key) in open_units]
            steps = left_to_do(left, self._memory.launches, self._spec.plan, self._manifest.seed)
            work.append((left, steps))
        if not any(left for left, _ in work):
            return
        if not device.way.is_this_machine:
            self._wait_for_device(device.way)
        clock = Clock(self._spec.plan.seconds + self._spec.plan.warmup_seconds, sum(len(steps) for _, steps in work))
        bench = self._bench(device, keys, clock)
        for left, steps in work:
            deployed = [one for key in left if (one := self._deploy(device.way, key, made)) is not None]
            present = {one.cell_id for one in deployed}
            measure_group(bench, deployed, [step for step in steps if step.cell_id in present], self._spec.plan)

    def _bench(self, device: DeviceInUse, keys: Sequence[CellKey], clock: Clock) -> Bench:
        def tell(key: CellKey, doing: str) -> None:
            ended = sum(self._memory.is_finished(one) for one in keys)
            self._progress.measuring(key, doing, (ended, len(keys)), clock.seconds_left())

        def write(record: Launch | CellEnd) -> None:
            self._memory.append(record)
            if isinstance(record, CellEnd):
                self._progress.ended(record)
            elif record.purpose == "latency":
                clock.one_done()

        def cores_for(threads: int) -> list[int] | None:
            return device.cores[:threads] if device.facts["pinning"] else None

        return Bench(device.way, self._session_id, cores_for, device.idle_temp_c, write, tell)

    def _count_on(
        self, emulator: Emulator, keys: Sequence[CellKey], to_do: Sequence[CellKey], made: Mapping[str, Prepared]
    ) -> None:
        """Count the instructions of every cell of an emulated device."""
        for key in to_do:
            network = made[identity(self._making.network(key))].folder
            folder = made[identity(self._making.artifact(key))].folder
            if network is None or folder is None or self._memory.is_finished(key):
                continue
            ended = sum(self._memory.is_finished(one) for one in keys)
            self._progress.measuring(key, "counting instructions", (ended, len(keys)), None)
            self._end(count_cell(self._session_id, key, self._cache, folder, network, emulator))

    def _wait_for_device(self, way: Transport) -> None:
        if way.acquire():
            return
        self._progress.say(f"{way.name}: another run is measuring on it; waiting until it is free (Ctrl-C stops)")
        while not way.acquire():
            time.sleep(_LEASE_POLL_SECONDS)

    def _deploy(self, way: Transport, key: CellKey, made: Mapping[str, Prepared]) -> CellWork | None:
        """Push a cell's files; None, and the cell failed, where that is impossible."""
        network = made[identity(self._making.network(key))].folder
        folder = made[identity(self._making.artifact(key))].folder
        if network is None or folder is None:
            return None
        try:
            shape = json.loads((network / NETWORK_FILE).read_text())["input_shape"]
            example = np.fromfile(network / INPUT_FILE, dtype="float32").reshape(shape)
            artifact = compiling.load_artifact(folder)
            deployed = deploy(way, artifact, network / INPUT_FILE, example, np.load(network / REFERENCE_FILE))
        except EdgepruneError as error:
            self._give_up(key, "failed", told(error))
            return None
        except (OSError, ValueError) as error:
            self._give_up(key, "failed", f"its files in the cache cannot be read: {error}; run the same command again")
            return None
        launches = list(self._memory.launches.get(key.cell_id, ()))
        return CellWork(key, deployed, artifact, launches, finished=self._memory.is_finished(key))

    def _give_up(self, key: CellKey, status: str, reason: str) -> None:
        self._end(end_of(self._session_id, key, status=status, reason=reason))

    def _end(self, end: CellEnd) -> None:
        self._memory.append(end)
        self._progress.ended(end)
