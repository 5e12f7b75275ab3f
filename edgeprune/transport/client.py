"""The local end of a link: one client program (the agent itself, ssh, adb) whose streams are those of the agent.

Start with `Client`. It knows nothing of what the lines mean; `channel.Channel` does.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from edgeprune.errors import TransportError
from edgeprune.storage import storage_error

_STDERR_TAIL = 2000


class Client:
    """A program started here in a session of its own, so that Ctrl-C reaches only this process.

    Args:
        arguments: Its argument list.
        device: Name used in messages.
        folder: Where it is started.

    Raises:
        TransportError: it cannot be started.
        StorageError: there is no room for what it says to stderr.
    """

    def __init__(self, arguments: Sequence[str], device: str, folder: Path | None = None) -> None:
        try:
            self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise storage_error(error, Path(tempfile.gettempdir())) from error
        try:
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise TransportError(f"{device}: cannot start {arguments[0]}: {error.strerror}") from error
        self._said = ""
        self._closing = threading.RLock()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def write(self, line: bytes) -> bool:
        """Write a line; False if the client takes none any more."""
        try:
            if self._process.stdin is None:
                return False
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def lines(self) -> Iterator[bytes]:
        """Its complete lines until it ends; what a cut has left of one is no line."""
        if self._process.stdout is not None:
            with contextlib.suppress(ValueError):  # closed under our hands
                for line in self._process.stdout:
                    if line.endswith(b"\n"):
                        yield line

    def first_line(self, seconds: float) -> bytes:
        """Its first line, or b"" if it ends or `seconds` pass without one; then it is killed."""
        watchdog = threading.Timer(seconds, self.kill)
        watchdog.start()
        try:
            return next(self.lines(), b"")
        finally:
            watchdog.cancel()

    def close_stdin(self) -> None:
        """Let the agent see the end of its stdin."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end; after `seconds` it is killed."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """End it and let its streams go; safe to call twice, and from two threads."""
        with self._closing:
            self.close_stdin()
            self.kill()
            self._process.wait()
            self._said = self.said()
            self._stderr.close()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        with self._closing:
            if self._stderr.closed:
                return self._said
            self._stderr.seek(0, 2)
            self._stderr.seek(max(0, self._stderr.tell() - _STDERR_TAIL))
            return self._stderr.read().decode(errors="replace").strip()
