"""A whole run: read the matrix, make what is missing, measure what is missing. Start with `run`.

The journal is the only memory: what it holds is finished, everything else is to do. The same call again goes on.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeprune.emulation import Emulator
from edgeprune.errors import DeviceError, ResultsError
from edgeprune.journal import Journal
from edgeprune.manifest import Manifest
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.cells import cells
from edgeprune.matrix.device import DeviceInUse, why_not
from edgeprune.matrix.device_run import DeviceRun, RunContext
from edgeprune.matrix.emulated import count_cell
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.faults import PATIENCE_SECONDS, told
from edgeprune.matrix.launch import now
from edgeprune.matrix.making import Made, Making
from edgeprune.matrix.manifest import installed_versions, open_manifest, require_same_making
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.pool import Prepared, prepare_all
from edgeprune.matrix.progress import RunProgress
from edgeprune.matrix.reaching import Reach
from edgeprune.matrix.side_by_side import Laptop, work_side_by_side
from edgeprune.matrix.simulated import simulate_cell
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.matrix.stages import NETWORK_FILE
from edgeprune.matrix.targets import Targets, find_targets
from edgeprune.resources import cache_folder
from edgeprune.schema import CellEnd, CellKey, Network, NetworkKey, Session
from edgeprune.storage import storage_error


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the folder, and the ends of the cells of the matrix."""

    folder: Path
    ends: tuple[CellEnd, ...]

    def count(self, status: str) -> int:
        """How many cells ended in this way."""
        return sum(end.status == status for end in self.ends)


def run(
    spec: MatrixSpec,
    folder: Path,
    progress: RunProgress,
    command: Sequence[str] = (),
    patience_s: float = PATIENCE_SECONDS,
) -> Outcome:
    """Carry out a matrix in a results folder, going on where an earlier run stopped.

    All is prepared first; then the devices measure at the same time, one cell at a time each, and this machine after
    them, alone. What goes wrong with one network or one device fails its cells and nothing else; a device that is out
    of contact is waited for, up to `patience_s` seconds at a time.

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
            _Run(spec, folder, progress, memory, manifest, targets, patience_s).carry_out(keys, to_do, command)
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
        patience_s: float,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._progress = progress
        self._memory = memory
        self._manifest = manifest
        self._session_id = f"{now()}-{secrets.token_hex(2)}"
        self._cache = Cache(cache_folder())
        self._making = Making(spec)
        self._targets = targets
        self._patience_s = patience_s

    def carry_out(self, keys: Sequence[CellKey], to_do: Sequence[CellKey], command: Sequence[str]) -> None:
        """Make, then measure, the cells that are left."""
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
        say = self._progress.say
        with Reach(
            self._folder, self._manifest, self._memory, self._targets, self._session_id, say, self._patience_s
        ) as reach:
            emulators: dict[str, Emulator | None] = {}
            devices: list[DeviceInUse] = []
            for name in dict.fromkeys(key.device for key in to_do):
                here = [key for key in to_do if key.device == name]
                try:
                    device = next(one for one in self._spec.devices if one.name == name)
                    if here[0].is_simulated:
                        reach.simulator(device)
                        emulators[name] = None
                    elif here[0].is_emulated:
                        emulators[name] = reach.emulator(name)
                    else:
                        devices.append(reach.device(device))
                except DeviceError as error:
                    # an emulator or a simulator that is missing is no fault of this run
                    is_missing = here[0].is_emulated or here[0].is_simulated
                    self._give_up_all(here, "skipped" if is_missing else "failed", told(error))
            reached = {*emulators, *(device.way.name for device in devices)}
            to_do = self._possible(devices, [key for key in to_do if key.device in reached])
            made = self._prepare(keys, to_do)
            self._measure(reach, devices, emulators, keys, to_do, made)

    def _possible(self, devices: Sequence[DeviceInUse], to_do: Sequence[CellKey]) -> list[CellKey]:
        """The cells whose runtime can be on their device; the others end as skipped."""
        impossible: dict[tuple[str, str], list[CellKey]] = {}
        by_name = {device.way.name: device for device in devices}
        for key in to_do:
            if key.device in by_name and why_not(by_name[key.device], key.runtime):
                impossible.setdefault((key.device, key.runtime), []).append(key)
        for (name, runtime), keys in impossible.items():
            self._give_up_all(keys, "skipped", why_not(by_name[name], runtime))
        return [key for key in to_do if (key.device, key.runtime) not in impossible]

    # --- preparing ----------------------------------------------------------------------------------------------------

    def _prepare(self, keys: Sequence[CellKey], to_do: Sequence[CellKey]) -> Made:
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
        made = Made(self._making, prepare_all(tasks, self._cache, logs, self._progress))
        for key in {key.network: key for key in related if key.batch == min(self._spec.batch)}.values():
            self._write_network(key, made.network(key))
        for key in to_do:
            result = made.artifact(key)
            if result.folder is None and not self._memory.is_finished(key):
                self._end(end_of(self._session_id, key, status="failed", reason=result.reason))
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

    def _measure(
        self,
        reach: Reach,
        devices: Sequence[DeviceInUse],
        emulators: Mapping[str, Emulator | None],
        keys: Sequence[CellKey],
        to_do: Sequence[CellKey],
        made: Made,
    ) -> None:
        """Measure on all reached devices at once; on this machine after the others have ended, and alone.

        While it measures, nothing else of the run works here: no compiler, no emulator, no client of another device.
        """
        context = RunContext(
            session_id=self._session_id,
            plan=self._spec.plan,
            seed=self._manifest.seed,
            memory=self._memory,
            made=made,
            cache=self._cache,
            progress=self._progress,
            laptop=Laptop(),
            stop=threading.Event(),
            patience_s=self._patience_s,
        )

        def on(device: DeviceInUse) -> DeviceRun:
            name = device.way.name
            own = [key for key in keys if key.device == name]
            return DeviceRun(context, device, own, [key for key in to_do if key.device == name], reach.write_down)

        for key in to_do:
            if key.device in emulators and not self._memory.is_finished(key):
                context.laptop.later(partial(self._count, emulators[key.device], key, keys, made))
        others = [device for device in devices if not device.way.is_this_machine]
        here = [device for device in devices if device.way.is_this_machine]
        for together in (others, here):
            work_side_by_side([on(device) for device in together], context.laptop, context.stop)

    def _count(self, emulator: Emulator | None, key: CellKey, keys: Sequence[CellKey], made: Made) -> None:
        """Count the instructions of a cell on an emulated device, or its cycles on a simulated one."""
        folders = made.folders(key)
        if folders is None:
            return
        network, folder = folders
        own = [one for one in keys if one.device == key.device]
        ended = sum(self._memory.is_finished(one) for one in own)
        what = "instructions" if emulator else "cycles"
        self._progress.measuring(key, f"counting {what}", (ended, len(own)), None)
        if emulator is not None:
            end = count_cell(self._session_id, key, self._cache, folder, network, emulator)
        else:
            quantised = made.quantised(key).folder
            assert quantised is not None  # else there would be no artifact
            end = simulate_cell(self._session_id, key, self._cache, folder, network, quantised)
        self._end(end)

    def _give_up_all(self, keys: Sequence[CellKey], status: str, reason: str) -> None:
        """End cells of one cause, told once; finished partners of others, which stand among them, stay as they are."""
        self._progress.say(f"{status}: {len(keys)} cells on {keys[0].device}: {reason}")
        for key in keys:
            if not self._memory.is_finished(key):
                self._memory.append(end_of(self._session_id, key, status=status, reason=reason))

    def _end(self, end: CellEnd) -> None:
        self._memory.append(end)
        self._progress.ended(end)
