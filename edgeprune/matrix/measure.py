"""The measuring half of a run: every launch of every cell on one device, interleaved, each written down as it ends.

Start with `measure_group`. What is left to do is read from the journal's records, so that a run that was stopped goes
on: a launch counts if it is there, a pair counts if both of its launches were made in one session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from edgeprune.compiling import Artifact
from edgeprune.errors import DeviceError, EdgepruneError, ParityError
from edgeprune.matrix.cells import unit
from edgeprune.matrix.launch import Deployed, launch_latency, launch_memory
from edgeprune.measuring import MeasurePlan, Step, blocks, thermal_gate, throttled_window
from edgeprune.schema import CellEnd, CellKey, Launch
from edgeprune.transport import Transport

_THERMAL_POLL_SECONDS = 2.0


@dataclass
class CellWork:
    """One cell on its way: what was deployed for it, and what it has so far.

    `finished` says that it was measured before, and is here as the partner of a cell that was not.
    """

    key: CellKey
    deployed: Deployed
    artifact: Artifact
    launches: list[Launch] = field(default_factory=list)
    finished: bool = False
    failure: str = ""

    @property
    def cell_id(self) -> str:
        """The cell's hash."""
        return self.key.cell_id


@dataclass(frozen=True)
class Bench:
    """A device that is being measured on."""

    transport: Transport
    session_id: str
    cores_for: Callable[[int], list[int] | None]
    idle_temp_c: float | None
    write: Callable[[Launch | CellEnd], None]
    tell: Callable[[CellKey, str], None]


def left_to_do(
    cells: Sequence[CellKey], launches: Mapping[str, Sequence[Launch]], plan: MeasurePlan, seed: int
) -> list[Step]:
    """The launches still to be made for cells that are measured together, whole units at a time.

    A unit of a block is done when each of its cells has a launch there and all of these were made in one session; else
    all of it is measured again, since a masked launch of yesterday is no partner for a shrunk one of today.
    """
    units: dict[str, list[str]] = {}
    for key in cells:
        units.setdefault(unit(key), []).append(key.cell_id)
    steps = blocks(list(units.items()), plan, seed)
    return [step for step in steps if not _unit_is_done(step, units[step.unit], launches)]


def measure_group(bench: Bench, group: Sequence[CellWork], steps: Sequence[Step], plan: MeasurePlan) -> None:
    """Measure cells that are compared with each other: memory first, then the latency launches in the order of `steps`.

    The cells of a unit end together, after the unit's last launch; a cell that fails is given up and the others go on.
    """
    cells = {work.cell_id: work for work in group}
    ended: set[str] = set()

    def end_complete(remaining: Sequence[Step]) -> None:
        waiting = {step.unit for step in remaining}
        for work in group:
            if work.cell_id not in ended and (work.failure or unit(work.key) not in waiting):
                ended.add(work.cell_id)
                if work.failure or not work.finished:
                    bench.write(_end(bench, work))

    for work in group:
        if not any(launch.purpose == "memory" for launch in work.launches):
            _attempt(bench, work, partial(_memory, bench, work))
    end_complete(steps)
    for number, step in enumerate(steps, start=1):
        work = cells[step.cell_id]
        partner_failed = any(one.failure for one in group if unit(one.key) == step.unit)
        if not work.failure and not (work.finished and partner_failed):
            _attempt(bench, work, partial(_latency, bench, work, plan, step))
        end_complete(steps[number:])


def _unit_is_done(step: Step, cell_ids: Sequence[str], launches: Mapping[str, Sequence[Launch]]) -> bool:
    sessions: list[set[str]] = []
    for cell_id in cell_ids:
        made = [one for one in launches.get(cell_id, ()) if one.purpose == "latency" and one.block == step.block]
        sessions.append({one.session_id for one in made})
    return bool(set.intersection(*sessions))


def _memory(bench: Bench, work: CellWork) -> Launch:
    bench.tell(work.key, "memory")
    cores = bench.cores_for(work.key.threads)
    step = Step(block=0, unit=unit(work.key), order=0, cell_id=work.cell_id)
    return launch_memory(bench.transport, work.deployed, step, bench.session_id, cores)


def _latency(bench: Bench, work: CellWork, plan: MeasurePlan, step: Step) -> Launch:
    waited = _wait_for_cool(bench, work.key)
    bench.tell(work.key, f"launch {step.block + 1} of {plan.launches}")
    cores = bench.cores_for(work.key.threads)
    launch = launch_latency(bench.transport, work.deployed, plan, step, bench.session_id, cores)
    return launch.model_copy(update={"thermal_wait_s": waited})


def _attempt(bench: Bench, work: CellWork, make: Callable[[], Launch]) -> None:
    """Make one launch and write it down; what goes wrong on the device fails this cell only."""
    try:
        launch = make()
    except (DeviceError, ParityError) as error:
        work.failure = told(error)
    else:
        work.launches.append(launch)
        bench.write(launch)


def told(error: EdgepruneError) -> str:
    """An error as the `reason` of a cell: message, hint, and the last line of what the device said."""
    last = error.detail.splitlines()[-1] if error.detail else ""
    parts = [error.message, error.hint or "", last if last and last not in error.message else ""]
    return "; ".join(part for part in parts if part)


def _wait_for_cool(bench: Bench, key: CellKey) -> float:
    """Wait until the device is near its idle temperature; returns the seconds waited."""
    if bench.idle_temp_c is None:
        return 0.0
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        current = bench.transport.facts().get("temp_c")
        if thermal_gate(bench.idle_temp_c, current, waited) != "wait":
            return waited
        bench.tell(key, f"cooling down, {current} °C")
        time.sleep(_THERMAL_POLL_SECONDS)


def _end(bench: Bench, work: CellWork) -> CellEnd:
    """How the cell ends: failed, invalid if the device throttled during a launch, else ok."""
    timed = [launch for launch in work.launches if launch.purpose == "latency"]
    hot = sum(bool(throttled_window(launch.readings)) for launch in timed)
    status, reason = "ok", ""
    if work.failure:
        status, reason = "failed", work.failure
    elif hot:
        status = "invalid"
        reason = f"the device throttled in {hot} of {len(timed)} launches; cool it better, then run the same command"
    return end_of(bench.session_id, work.key, work.artifact, status=status, reason=reason)


def end_of(
    session_id: str,
    key: CellKey,
    artifact: Artifact | None = None,
    *,
    status: str = "ok",
    reason: str = "",
    instructions: int | None = None,
) -> CellEnd:
    """The record of a cell's end, with the sizes of its artifact where there is one."""
    return CellEnd.model_validate(
        {
            "session_id": session_id,
            "cell_id": key.cell_id,
            "key": key,
            "status": status,
            "reason": reason,
            "artifact_bytes": artifact and artifact.artifact_bytes,
            "weights_bytes": artifact and artifact.weights_bytes,
            "arena_bytes": artifact and artifact.arena_bytes,
            "instructions": instructions,
        }
    )
