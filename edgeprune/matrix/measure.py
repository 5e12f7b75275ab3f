"""The measuring half of a run: every launch of every cell on one device, interleaved, each written down as it ends.

Start with `measure_group`. What is left to do is read from the journal's records, so that a run that was stopped goes
on: a launch counts if it is there, a pair counts if both of its launches were made in one session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from edgeprune.compiling import Artifact
from edgeprune.errors import DeviceError, ParityError
from edgeprune.matrix.cells import unit
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.faults import Contact, told
from edgeprune.matrix.fitness import wait_until_fit
from edgeprune.matrix.launch import Deployed, Place, launch_check, launch_latency, launch_memory
from edgeprune.measuring import MeasurePlan, Step, blocks, throttled_window
from edgeprune.schema import CellEnd, CellKey, Launch


@dataclass
class CellWork:
    """One cell on its way: what is deployed for it, and what it has so far.

    `finished` says that it was measured before, and is here as the partner of a cell that was not; `deployed_at` is how
    often the device had been away when its files were pushed.
    """

    key: CellKey
    artifact: Artifact
    deploy: Callable[[], Deployed]
    launches: list[Launch] = field(default_factory=list)
    finished: bool = False
    failure: str = ""
    deployed: Deployed | None = None
    deployed_at: int = 0

    @property
    def cell_id(self) -> str:
        """The cell's hash."""
        return self.key.cell_id


@dataclass(frozen=True)
class Bench:
    """A device that is being measured on."""

    contact: Contact
    place: Callable[[CellKey], Place]
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
    What they took of the device's disk is then free for the next group.
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
        _attempt(bench, work, partial(_push, bench, work))
        if not work.failure and not any(launch.purpose == "memory" for launch in work.launches):
            _attempt(bench, work, partial(_memory, bench, work))
    end_complete(steps)
    for number, step in enumerate(steps, start=1):
        work = cells[step.cell_id]
        partner_failed = any(one.failure for one in group if unit(one.key) == step.unit)
        if not work.failure and not (work.finished and partner_failed):
            _attempt(bench, work, partial(_latency, bench, work, plan, step))
        end_complete(steps[number:])
    for work in group:
        _discard(bench, work)


def check_cell(bench: Bench, work: CellWork) -> None:
    """Compare a cell's numbers on a device that is emulated; a check that the journal holds is not made again.

    What goes wrong ends the cell as failed; else its end is the caller's.
    """
    if not any(launch.purpose == "check" for launch in work.launches):
        _attempt(bench, work, partial(_check, bench, work))
    _discard(bench, work)
    if work.failure:
        bench.write(_end(bench, work))


def _unit_is_done(step: Step, cell_ids: Sequence[str], launches: Mapping[str, Sequence[Launch]]) -> bool:
    sessions: list[set[str]] = []
    for cell_id in cell_ids:
        made = [one for one in launches.get(cell_id, ()) if one.purpose == "latency" and one.block == step.block]
        sessions.append({one.session_id for one in made})
    return bool(set.intersection(*sessions))


def _push(bench: Bench, work: CellWork) -> Deployed:
    """A cell's files on the device: pushed the first time, and anew when it was away, since it may have lost them.

    The clock that it runs at may have been lost in the same way.
    """
    if work.deployed is None or work.deployed_at != bench.contact.absences:
        bench.tell(work.key, "copying")
        work.deployed, work.deployed_at = work.deploy(), bench.contact.absences
        bench.contact.way.raise_clock()
    return work.deployed


def _discard(bench: Bench, work: CellWork) -> None:
    """The network is not needed on the device any more; the input may be another's, too."""
    if work.deployed is not None:
        bench.contact.way.discard(work.deployed.model)


def _memory(bench: Bench, work: CellWork) -> Launch:
    deployed = _push(bench, work)
    bench.tell(work.key, "memory")
    return launch_memory(bench.place(work.key), deployed, _alone(work))


def _check(bench: Bench, work: CellWork) -> Launch:
    deployed = _push(bench, work)
    bench.tell(work.key, "comparing numbers")
    return launch_check(bench.place(work.key), deployed, _alone(work))


def _latency(bench: Bench, work: CellWork, plan: MeasurePlan, step: Step) -> Launch:
    deployed = _push(bench, work)
    waited = wait_until_fit(bench.contact, bench.idle_temp_c, partial(bench.tell, work.key))
    bench.tell(work.key, f"launch {step.block + 1} of {plan.launches}")
    launch = launch_latency(bench.place(work.key), deployed, plan, step)
    return launch.model_copy(update={"thermal_wait_s": waited})


def _alone(work: CellWork) -> Step:
    """The step of a launch that has no partner and no order."""
    return Step(block=0, unit=unit(work.key), order=0, cell_id=work.cell_id)


def _attempt(bench: Bench, work: CellWork, make: Callable[[], Launch | Deployed]) -> None:
    """Carry out one step of a cell, and write its launch down; what goes wrong there fails this cell only."""
    try:
        made = bench.contact.carry_out(make)
    except (DeviceError, ParityError) as error:
        work.failure = told(error)
        return
    if isinstance(made, Launch):
        work.launches.append(made)
        bench.write(made)


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
    return end_of(bench.place(work.key).session_id, work.key, work.artifact, status=status, reason=reason)
