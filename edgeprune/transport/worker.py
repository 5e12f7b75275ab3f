"""The laptop's side of the worker protocol (`devices/workers/worker_loop.py` documents it): one launch of one model.

with Worker.start(transport, "onnxruntime", cores=[1]) as worker:
    worker.load(remote_model, threads=1)
    ...
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeprune.errors import GarbledAnswerError, RemoteError
from edgeprune.resources import devices_folder
from edgeprune.transport.answers import Checked, Loaded, Memory, Output, Samples, read
from edgeprune.transport.channel import Channel
from edgeprune.transport.contract import Transport

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

ANSWER_SECONDS = 300.0  # a ResNet-101 takes two minutes on an emulated board


@dataclass(frozen=True)
class TimedSamples:
    """Wall times of groups of `group` calls, nanoseconds a group, in the order they were taken."""

    group: int
    samples_ns: list[int]


class Worker:
    """A worker process on a device, holding one runtime and at most one model."""

    def __init__(self, transport: Transport, channel: Channel, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._transport = transport
        self._channel = channel
        self._answer_seconds = answer_seconds
        self.versions: dict[str, str] = {}

    @classmethod
    def start(
        cls,
        transport: Transport,
        runtime: str,
        cores: Sequence[int] | None,
        program: Sequence[str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> Worker:
        """Start a worker, pinned to `cores`: the runtime's own files, which are pushed, or `program`.

        Args:
            transport: The way to the device.
            runtime: Its worker is `<runtime>_worker.py`.
            cores: Cores to run on, None for any.
            program: A pushed program that speaks the protocol itself, with its arguments.
            answer_seconds: How long it may be silent beyond what it was asked to do.
        """
        if program is not None:
            return cls(transport, transport.run(program, cores), answer_seconds)
        workers = devices_folder() / "workers"
        script, _ = transport.push([workers / f"{runtime}_worker.py", workers / "worker_loop.py"])
        return cls(transport, transport.run([*transport.python(runtime), script], cores), answer_seconds)

    @property
    def cores(self) -> list[int] | None:
        """The cores the worker is pinned to; None where the device cannot pin."""
        return self._channel.cores

    @property
    def readings(self) -> list[dict[str, Any]]:
        """What the agent has read of the device so far."""
        return list(self._channel.readings)

    def load(self, remote_model: str, threads: int) -> None:
        """Load a model that was pushed."""
        answer = self._ask({"op": "load", "model": remote_model, "threads": threads}, "load")
        self.versions = read(Loaded, answer, self._transport.name).versions

    def bind(self, inputs: Sequence[tuple[str, Array]]) -> None:
        """Set the model's inputs: pairs of a pushed file of raw numbers and the array it holds."""
        entries = [{"path": path, "shape": list(array.shape), "dtype": str(array.dtype)} for path, array in inputs]
        self._ask({"op": "bind", "inputs": entries}, "bind")

    def check(self, count: int) -> list[Array]:
        """Run once and fetch the `count` outputs."""
        paths = [self._transport.remote_path(f"output{number}.bin") for number in range(count)]
        outputs = read(Checked, self._ask({"op": "check", "outputs": paths}, "check"), self._transport.name).outputs
        if len(outputs) != count:
            raise GarbledAnswerError(f"{self._transport.name}: {len(outputs)} outputs, and {count} were asked for")
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            return [self._fetch(output, Path(folder) / "output.bin") for output in outputs]

    def _fetch(self, output: Output, local: Path) -> Array:
        import numpy as np

        self._transport.pull(output.path, local)
        try:
            flat: Array = np.fromfile(local, dtype=output.dtype)
            return flat.reshape(output.shape)
        except (TypeError, ValueError, SyntaxError) as error:
            words = f"an output of {local.stat().st_size} bytes is no {output.dtype[:40]} {output.shape}: {error}"
            raise GarbledAnswerError(f"{self._transport.name}: {words}") from error

    def time(
        self, *, group: int, samples: int, seconds: float, lead: int = 0, expected_seconds: float = 0.0
    ) -> TimedSamples:
        """Time groups of `group` calls until `samples` groups and `seconds` are both reached, after `lead` calls.

        The worker is silent until it is done; `expected_seconds` says how long that will take if it is more than
        `seconds`.
        """
        self._channel.send({"op": "time", "group": group, "samples": samples, "seconds": seconds, "lead": lead})
        taken: list[int] = []
        patience = self._answer_seconds + 4 * max(seconds, expected_seconds)
        while True:
            answer = self._channel.receive(patience)
            if answer.get("ok") == "time":
                if len(taken) < samples:
                    raise GarbledAnswerError(f"{self._transport.name}: {len(taken)} samples of {samples} came")
                return TimedSamples(group, taken)
            if "samples_ns" not in answer:
                raise RemoteError(f"{self._transport.name}: the worker answered out of turn: {answer}")
            taken.extend(read(Samples, answer, self._transport.name).samples_ns)

    def peak_rss_bytes(self, calls: int) -> int:
        """Run `calls` inferences, then read the largest resident memory the process has had."""
        answer = self._ask({"op": "memory", "calls": calls}, "memory")
        return read(Memory, answer, self._transport.name).peak_rss_bytes

    def stop(self) -> None:
        """End the worker, whatever it is doing."""
        self._channel.stop()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, request: dict[str, Any], expected: str) -> dict[str, Any]:
        self._channel.send(request)
        answer = self._channel.receive(self._answer_seconds)
        if answer.get("ok") != expected:
            raise RemoteError(f"{self._transport.name}: the worker answered out of turn: {answer}")
        return answer
