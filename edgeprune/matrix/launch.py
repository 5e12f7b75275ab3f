"""One launch: a fresh worker on a device, from loading the model to the last sample. Start with `launch_latency`.

The order is always the same: load, bind, compare the output with the reference, and only then time. The numbers come
back as one `Launch` record with every sample in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from edgeprune import compiling, exporting
from edgeprune.compiling import Artifact
from edgeprune.errors import ParityError
from edgeprune.exporting import PARITY_TOLERANCE
from edgeprune.measuring import MeasurePlan, Step, group_size, warmup_decision
from edgeprune.schema import Launch, Reading
from edgeprune.transport import Transport, Worker

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MEMORY_CALLS = 20
_FIRST_CALLS = 10
_LATER_SAMPLES = 5
_WARMUP_SAMPLE_SECONDS = 0.01
_LEAD_SECONDS = 0.005


@dataclass(frozen=True)
class Deployed:
    """A compiled network and its test vectors, pushed to a device."""

    runtime: str
    threads: int
    model: str
    input_path: str
    input: Array
    reference: Array


@dataclass(frozen=True)
class Place:
    """Where and for whom launches are made.

    Attributes:
        transport: The way to the device.
        session_id: The run's.
        cores: Cores to run on, None for any.
        answer_s: How long a worker may be silent beyond what it was asked to do, seconds.
    """

    transport: Transport
    session_id: str
    cores: Sequence[int] | None
    answer_s: float


def deploy(transport: Transport, artifact: Artifact, input_file: Path, example: Array, reference: Array) -> Deployed:
    """Push an artifact's files and the input; `reference` is what the network must answer to `example`.

    Raises:
        TransportError: a copy failed.
    """
    others = [file for file in artifact.files if file != artifact.model]
    model = transport.push([artifact.model, *others])[0]
    return Deployed(artifact.runtime, artifact.threads, model, transport.push([input_file])[0], example, reference)


def launch_latency(place: Place, deployed: Deployed, plan: MeasurePlan, step: Step) -> Launch:
    """Warm up, take samples, and write down everything.

    Raises:
        ParityError: the output on the device differs from the reference by more than 1e-4 relative.
        DeviceError: the link or the worker failed.
    """
    started_at = now()
    with _start(place, deployed) as worker:
        parity = _load_and_compare(worker, deployed)
        warm = _warm_up(worker, plan)
        group = group_size(warm.call_ns, plan)
        taken = worker.time(
            group=group,
            samples=plan.samples,
            seconds=plan.seconds,
            lead=max(1, round(_LEAD_SECONDS * 1e9 / warm.call_ns)),
            expected_seconds=plan.samples * group * warm.call_ns / 1e9,
        )
        worker.stop()  # the agent's last reading comes as it ends
    return Launch(
        **_circumstances(worker, step, place, started_at),
        purpose="latency",
        first_calls_ns=warm.first_calls_ns,
        warmup_group=warm.group,
        warmup_ns=warm.samples_ns,
        group=group,
        steady=warm.steady,
        samples_ns=taken.samples_ns,
        parity_rel=parity,
        peak_rss_bytes=None,
    )


def launch_memory(place: Place, deployed: Deployed, step: Step) -> Launch:
    """A launch that takes no times: the process's peak memory after loading and a few inferences.

    Raises:
        ParityError: the output on the device differs from the reference by more than 1e-4 relative.
        DeviceError: the link or the worker failed.
    """
    return _launch_untimed(place, deployed, step, "memory")


def launch_check(place: Place, deployed: Deployed, step: Step) -> Launch:
    """A launch that only compares numbers, for devices whose time and memory are not a device's: emulated ones.

    Raises:
        ParityError: the output on the device differs from the reference by more than 1e-4 relative.
        DeviceError: the link or the worker failed.
    """
    return _launch_untimed(place, deployed, step, "check")


def _launch_untimed(place: Place, deployed: Deployed, step: Step, purpose: Literal["memory", "check"]) -> Launch:
    started_at = now()
    with _start(place, deployed) as worker:
        parity = _load_and_compare(worker, deployed)
        peak = worker.peak_rss_bytes(MEMORY_CALLS) if purpose == "memory" else None
        worker.stop()
    return Launch(
        **_circumstances(worker, step, place, started_at),
        purpose=purpose,
        warmup_ns=[],
        group=1,
        steady=None,
        samples_ns=[],
        parity_rel=parity,
        peak_rss_bytes=peak,
    )


def _circumstances(worker: Worker, step: Step, place: Place, started_at: str) -> dict[str, Any]:
    """What a launch was, whatever it was for."""
    return {
        "session_id": place.session_id,
        "cell_id": step.cell_id,
        "block": step.block,
        "unit": step.unit,
        "order": step.order,
        "started_at": started_at,
        "cores": worker.cores,
        "readings": _readings(worker),
    }


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _start(place: Place, deployed: Deployed) -> Worker:
    """The runtime's worker, or the model itself where that is a program."""
    program = None
    if compiling.is_program(deployed.runtime):
        program = [deployed.model, "serve", "--threads", str(deployed.threads)]
    return Worker.start(place.transport, deployed.runtime, place.cores, program, place.answer_s)


def _load_and_compare(worker: Worker, deployed: Deployed) -> float:
    worker.load(deployed.model, deployed.threads)
    worker.bind([(deployed.input_path, deployed.input)])
    (output,) = worker.check(1)
    difference = exporting.parity(deployed.reference, output)
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(
            f"{deployed.runtime}: the output on the device differs from the reference by {difference:.1e} relative",
            hint=f"at most {PARITY_TOLERANCE:g} is allowed; nothing was timed",
        )
    return difference


@dataclass(frozen=True)
class _WarmUp:
    first_calls_ns: list[int]
    group: int
    samples_ns: list[int]
    steady: bool

    @property
    def call_ns(self) -> float:
        """What a warm call takes."""
        return max(1.0, median(self.samples_ns[-_LATER_SAMPLES:]) / self.group)


def _warm_up(worker: Worker, plan: MeasurePlan) -> _WarmUp:
    """Run until the last samples are steady, or give up; every sample on the way is kept.

    Warm-up samples are groups of 10 ms whatever the plan, so that its minimum of 0.5 s is about 50 of them and its
    maximum of 300 about 3 s, for short calls and for those just above 1 ms alike.
    """
    began = time.monotonic()
    first = worker.time(group=1, samples=_FIRST_CALLS, seconds=0.0).samples_ns
    call_ns = max(1.0, median(first[len(first) // 2 :]))
    group = max(1, round(_WARMUP_SAMPLE_SECONDS * 1e9 / call_ns))
    samples: list[int] = []
    wanted, seconds = plan.warmup_window, plan.warmup_seconds
    while True:
        expected = call_ns * group * wanted / 1e9
        samples += worker.time(group=group, samples=wanted, seconds=seconds, expected_seconds=expected).samples_ns
        calls = len(first) + group * len(samples)
        decision = warmup_decision(calls, time.monotonic() - began, samples, plan)
        if decision != "continue":
            return _WarmUp(first, group, samples, decision == "steady")
        wanted, seconds = _LATER_SAMPLES, 0.0


def _readings(worker: Worker) -> list[Reading]:
    return [
        Reading(
            t_ns=round(float(reading["uptime_s"]) * 1e9),
            temp_c=reading["temp_c"],
            clock_hz=reading["clock_hz"],
            throttled=reading["throttled"],
        )
        for reading in worker.readings
    ]
