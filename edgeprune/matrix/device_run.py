"""All that a run does on one device, from taking it to letting it go: `DeviceRun`, a thread's work.

Cells are measured one at a time. What goes wrong with one ends that cell; what goes wrong with the device ends those of
its cells that are left, with its reason (`faults.py` tells the two apart). On a device that says it is emulated numbers
are compared and instructions counted, and nothing is timed: an emulator's times and memory are no device's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeprune import compiling
from edgeprune.errors import DeviceError, EdgepruneError
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.cells import groups, unit
from edgeprune.matrix.device import Clock, DeviceInUse, ranked_cores
from edgeprune.matrix.emulated import count, emulator_of_target
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.faults import Contact, DeviceGivenUpError, told
from edgeprune.matrix.launch import Place, deploy
from edgeprune.matrix.making import Made
from edgeprune.matrix.measure import Bench, CellWork, check_cell, left_to_do, measure_group
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.progress import RunProgress
from edgeprune.matrix.side_by_side import Laptop
from edgeprune.matrix.stages import INPUT_FILE, NETWORK_FILE, REFERENCE_FILE
from edgeprune.measuring import MeasurePlan, Step
from edgeprune.schema import CellEnd, CellKey, Launch
from edgeprune.transport import ANSWER_SECONDS

_LEASE_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class RunContext:
    """What the devices of a run share.

    Attributes:
        session_id: This invocation's.
        plan: How much is measured.
        seed: Decides the order of launches.
        memory: What has been measured.
        made: What was prepared.
        cache: Where instruction counts are kept.
        progress: Who is told.
        laptop: Takes work that the laptop does itself.
        stop: Set when the run is being stopped.
        patience_s: How long a device may be out of contact, seconds.
    """

    session_id: str
    plan: MeasurePlan
    seed: int
    memory: Memory
    made: Made
    cache: Cache
    progress: RunProgress
    laptop: Laptop
    stop: threading.Event
    patience_s: float


class DeviceRun:
    """One device's part of a run.

    Args:
        context: What the devices share.
        device: The device, as the run reached it.
        keys: All its cells, for the progress line.
        to_do: Those that are left, and the finished partners they are to be measured beside.
        renewed: Called with the facts of a device that was away.
    """

    def __init__(
        self,
        context: RunContext,
        device: DeviceInUse,
        keys: Sequence[CellKey],
        to_do: Sequence[CellKey],
        renewed: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.name = device.way.name
        self._context = context
        self._device = device
        self._keys = keys
        self._to_do = [key for key in to_do if context.made.folders(key)]
        self._handed_over: set[CellKey] = set()
        told_of = partial(renewed, self.name)
        say = context.progress.say
        self._contact = Contact(device.way, device.facts, context.patience_s, context.stop, say, told_of)

    def carry_out(self) -> None:
        """Measure what is left, and let the device go.

        Raises:
            StoppedError: the run is being stopped.
            StorageError: the journal cannot be written.
        """
        try:
            if self._left():
                if self._device.away is not None:
                    self._contact.wait_for(self._device.away)
                self._take()
                if self._contact.facts.get("emulated"):
                    self._check_all()
                else:
                    self._measure_all()
        except (DeviceGivenUpError, DeviceError) as error:  # what concerns one cell alone has ended that cell already
            left = self._left()
            self._contact.say(f"given up with {len(left)} cells left: {told(error)}")
            for key in left:
                record = end_of(self._context.session_id, key, status="failed", reason=told(error))
                self._context.memory.append(record)
        self._device.way.close()

    def abort(self) -> None:
        """End what is under way on the device."""
        self._device.way.abort()

    def _left(self) -> list[CellKey]:
        unfinished = [key for key in self._to_do if not self._context.memory.is_finished(key)]
        return [key for key in unfinished if key not in self._handed_over]

    def _take(self) -> None:
        """Take the device for this run alone, waiting while another has it."""
        said = ""
        while not self._contact.carry_out(self._device.way.acquire, leased=False):
            holder = self._device.way.holder()
            owner = holder.partition(",")[0]
            if owner != said:
                self._contact.say(f"another run is measuring on it ({holder}); waiting until it is free")
                said = owner
            self._contact.pause(_LEASE_POLL_SECONDS)
        if before := self._device.way.taken_over_from():
            self._contact.say(f"taken over from {before}, whose run has not been heard of for too long")

    def _cores(self) -> list[int]:
        return list(self._device.wanted_cores) or ranked_cores(self._contact.facts)

    # --- devices that are timed ---------------------------------------------------------------------------------------

    def _measure_all(self) -> None:
        cores = len(self._cores())
        work: list[tuple[list[CellKey], list[Step]]] = []
        for group in groups(self._to_do):
            if group[0].threads > cores:
                for key in group:
                    self._skip(key, f"{key.threads} threads, and {self.name} has {cores} cores")
                continue
            open_units = {unit(key) for key in group if not self._context.memory.is_finished(key)}
            left = [key for key in group if unit(key) in open_units]
            launches = {key.cell_id: self._context.memory.launches_of(key) for key in left}
            work.append((left, left_to_do(left, launches, self._context.plan, self._context.seed)))
        plan = self._context.plan
        clock = Clock(plan.seconds + plan.warmup_seconds, sum(len(steps) for _, steps in work))
        bench = self._bench(clock)
        for left, steps in work:
            cells = [one for key in left if (one := self._load(key)) is not None]
            present = {one.cell_id for one in cells}
            measure_group(bench, cells, [step for step in steps if step.cell_id in present], plan)

    def _bench(self, clock: Clock | None) -> Bench:
        def tell(key: CellKey, doing: str) -> None:
            ended = sum(self._context.memory.is_finished(one) for one in self._keys)
            seconds_left = clock.seconds_left() if clock else None
            self._context.progress.measuring(key, doing, (ended, len(self._keys)), seconds_left)

        def write(record: Launch | CellEnd) -> None:
            if isinstance(record, CellEnd):
                self._end(record)
                return
            self._context.memory.append(record)
            if clock is not None and record.purpose == "latency":
                clock.one_done()

        def place(key: CellKey) -> Place:
            cores = self._cores()[: key.threads] if self._contact.facts["pinning"] else None
            answer_s = min(ANSWER_SECONDS, self._context.patience_s)
            return Place(self._device.way, self._context.session_id, cores, answer_s)

        return Bench(self._contact, place, self._device.idle_temp_c, write, tell)

    def _load(self, key: CellKey) -> CellWork | None:
        """A cell with what it takes to deploy it; None, and the cell failed, where its files cannot be read."""
        folders = self._context.made.folders(key)
        if folders is None:
            return None
        network, folder = folders
        try:
            shape = json.loads((network / NETWORK_FILE).read_text())["input_shape"]
            example = np.fromfile(network / INPUT_FILE, dtype="float32").reshape(shape)
            reference = np.load(network / REFERENCE_FILE)
            artifact = compiling.load_artifact(folder)
        except (EdgepruneError, OSError, ValueError) as error:
            words = f"its files in the cache cannot be read: {error}; run the same command again"
            self._end(end_of(self._context.session_id, key, status="failed", reason=words))
            return None
        pushed = partial(deploy, self._device.way, artifact, network / INPUT_FILE, example, reference)
        finished = self._context.memory.is_finished(key)
        return CellWork(key, artifact, pushed, self._context.memory.launches_of(key), finished)

    # --- devices that are emulated ------------------------------------------------------------------------------------

    def _check_all(self) -> None:
        bench = self._bench(None)
        for key in self._left():
            work = self._load(key)
            if work is None:
                continue
            check_cell(bench, work)
            if not work.failure:
                self._handed_over.add(key)
                self._context.laptop.later(partial(self._count, key))

    def _count(self, key: CellKey) -> None:
        """End a cell whose numbers are right: its instructions, where they can be counted here, and no time."""
        folders = self._context.made.folders(key)
        if folders is None:
            return
        words = f"emulated: {self._contact.facts['emulated']}; numbers compared, nothing timed"
        artifact, instructions = None, None
        try:
            artifact = compiling.load_artifact(folders[1])
            if compiling.is_program(key.runtime) and key.threads == 1:
                self._context.progress.say(f"{self.name}: counting instructions")
                instructions = count(self._context.cache, artifact, folders[0], emulator_of_target(key.target))
        except EdgepruneError as error:  # of this cell alone; its numbers on the device are right
            words += f"; instructions not counted: {told(error)}"
        session_id = self._context.session_id
        self._end(end_of(session_id, key, artifact, status="skipped", reason=words, instructions=instructions))

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _skip(self, key: CellKey, reason: str) -> None:
        self._end(end_of(self._context.session_id, key, status="skipped", reason=reason))

    def _end(self, end: CellEnd) -> None:
        self._context.memory.append(end)
        self._context.progress.ended(end)
