"""What every transport offers: copy files to and from a device, run one program there under the agent, ask for facts.

Start with `Transport`. A `Channel` is the running program: requests go in as JSON lines, answers come out as JSON
lines, and the end of its stdin ends everything on the device (`devices/agent/agent.sh` says how).
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from edgeprune.errors import GarbledAnswerError, RemoteError, TransportError
from edgeprune.storage import storage_error

AGENT_STOP_SECONDS = 2.0
_STDERR_TAIL = 2000


class Transport(Protocol):
    """The way to one device. Remote paths are strings that only the transport interprets."""

    name: str
    is_this_machine: bool
    """Whether preparing here would disturb a measurement there."""

    def facts(self) -> dict[str, Any]:
        """What the device says of itself (`agent.sh facts`).

        Raises:
            LinkLostError: it does not answer now.
            TransportError: it cannot be reached until somebody mends the way.
        """

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Take the device for this run alone; False if another run still holds it after `wait_seconds`.

        It is kept, renewed where that is needed, until `close`; to take it twice is to have it.
        """

    def holder(self) -> str:
        """Who holds the device that `acquire` did not get, and until when, in words; "" where nobody can say."""

    def check_lease(self) -> None:
        """Make sure that the device is still this run's.

        Raises:
            LeaseLostError: another run has taken it, or it could not be renewed in time.
        """

    def push(self, sources: Sequence[Path]) -> list[str]:
        """Copy files that belong together into one private folder on the device, named by their content.

        Each is copied under a temporary name, its hash checked on the device, then renamed; what is there already is
        not copied again. Returns the remote paths, in order.

        Raises:
            TransportError: a copy failed or does not equal its source.
        """

    def remote_path(self, name: str) -> str:
        """A path in the device's private folder for a file that a program there will write."""

    def pull(self, remote: str, destination: Path) -> None:
        """Copy a file from the device.

        Raises:
            TransportError: it is not there or cannot be copied.
        """

    def python(self, runtime: str | None = None) -> list[str]:
        """The words that start Python on the device; with a runtime, so that it finds what its worker loads.

        Raises:
            DeviceError: there is no Python that could, or its packages cannot be brought there.
        """

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel:
        """Start a program under the agent, pinned to `cores` where the device can."""

    def clean(self) -> None:
        """Remove everything of edgeprune's from the device, whoever put it there; `acquire` it first.

        Raises:
            TransportError: it does not answer.
        """

    def abort(self) -> None:
        """End what is under way, programs and copies: called from another thread than the one that waits for them.

        Those waits raise TransportError or RemoteError at once. The transport is only good for `close` after that.
        """

    def close(self) -> None:
        """Remove what was pushed and let the device go; safe to call twice."""


class Channel:
    """A program running on a device under the agent.

    Args:
        process: The local end: the agent itself, or the ssh or adb client that carries its streams.
        device: Name used in messages.
        stderr: The file that collects the stderr of both ends.
    """

    def __init__(self, process: subprocess.Popen[bytes], device: str, stderr: IO[bytes]) -> None:
        self._process = process
        self._device = device
        self._stderr = stderr
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._read_lines, daemon=True)
        self._pump.start()
        self.cores: list[int] | None = None
        self.readings: list[dict[str, Any]] = []

    def send(self, request: dict[str, Any]) -> None:
        """Write one request line.

        Raises:
            RemoteError: the program has ended.
        """
        stdin = self._process.stdin
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        try:
            if stdin is None:
                raise BrokenPipeError
            stdin.write(line)
            stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._ended("the program ended before it took a request") from None

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next answer of the program; the agent's own events are kept in `cores` and `readings`.

        Raises:
            GarbledAnswerError: it wrote something that is no JSON line.
            RemoteError: the program failed or ended.
            TransportError: nothing came within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TransportError(
                    f"{self._device}: no answer for {timeout:.0f} s", hint="is the device busy, asleep or out of reach?"
                ) from None
            if line is None:
                raise self._ended("the connection ended")
            answer = self._parse(line)
            event = answer.get("event")
            if event is None:
                if "error" in answer:
                    raise self._ended(f"{answer['error']}: {answer.get('message', '')}")
                return answer
            if event == "started":
                self.cores = answer["cores"]
            elif event == "reading":
                self.readings.append(answer)
            elif event == "exit":
                raise self._ended(_exit_words(int(answer["status"])))

    def stop(self) -> None:
        """End the program and wait until the agent has gone; safe to call twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=AGENT_STOP_SECONDS + 1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pump.join(timeout=1.0)
        self._take_last_readings()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def abort(self) -> None:
        """End the local end at once, from any thread: whoever waits in `receive` is told that the connection ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _take_last_readings(self) -> None:
        """What the agent read while the program ended; answers that nobody asked for are passed over."""
        while not self._lines.empty():
            line = self._lines.get()
            with contextlib.suppress(RemoteError):
                answer = self._parse(line) if line else {}
                if answer.get("event") == "reading":
                    self.readings.append(answer)

    def _read_lines(self) -> None:
        stdout = self._process.stdout
        if stdout is not None:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = line[:200].decode(errors="replace").rstrip()
            raise GarbledAnswerError(f"{self._device}: not an answer: {text!r}", detail=self._tail())
        return answer

    def _ended(self, what: str) -> RemoteError:
        return RemoteError(f"{self._device}: {what}", detail=self._tail())

    def _tail(self) -> str | None:
        if self._stderr.closed:
            return None
        self._stderr.seek(0, 2)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_TAIL))
        return self._stderr.read().decode(errors="replace").strip() or None


def parse_facts(line: bytes) -> dict[str, Any]:
    """What `agent.sh facts` printed, with its memory in bytes; ValueError where that is no facts line."""
    facts = json.loads(line)
    if not isinstance(facts, dict) or facts.pop("event", None) != "facts":
        raise ValueError(f"not facts: {line[:200]!r}")
    kib = facts.pop("memory_kib")  # a shell's numbers may be too small for bytes
    return facts | {"memory_bytes": None if kib is None else 1024 * kib}


def open_channel(arguments: Sequence[str], device: str, folder: Path | None = None) -> Channel:
    """Start the local end of a channel in a session of its own, so that Ctrl-C reaches only this program.

    Raises:
        TransportError: it cannot be started.
    """
    try:
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - the channel closes it
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir())) from error
    try:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        stderr.close()
        raise TransportError(f"{device}: cannot start {arguments[0]}: {error.strerror}") from error
    return Channel(process, device, stderr)


def _exit_words(status: int) -> str:
    if status > 128:
        cause = " (out of memory?)" if status == 137 else ""
        return f"the program was ended by signal {status - 128}{cause}"
    meaning = {126: " (cannot be executed here: wrong architecture?)", 127: " (not found on the device)"}
    return f"the program ended with status {status}{meaning.get(status, '')}"
