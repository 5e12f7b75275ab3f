"""The one connection of an ssh link: a client that stays, through which all others go, and its first words.

Start with `Connection`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import psutil

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.storage import storage_error
from edgeprune.transport.quoting import shell_line
from edgeprune.transport.ssh_words import Login, ssh_error

_LOGIN_SECONDS = 45.0  # a Zero 2 W under load takes its time for keys
_ENVIRONMENT = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
_HELLO = 'echo "$1 ${XDG_CACHE_HOME:-$HOME/.cache}/edgeprune-device $1"; exec cat >/dev/null'
_FOLDER_PATH_LIMIT = 60  # a socket's path may have 104 bytes, 17 of them for the name that ssh binds first
_CLIENT_FAILED = 255
_GOODBYE_SECONDS = 2.0


class Connection:
    """The one connection, kept open by a program that reads from this process: it ends with it, however that ends."""

    def __init__(self, client: Callable[[Sequence[str]], list[str]], login: Login) -> None:
        self._login = login
        self._place = _private_folder()
        self.socket = self._place / "s"
        mark = secrets.token_hex(8)
        hello = "exec " + shell_line(["sh", "-c", _HELLO, "sh", mark])
        command = [*client(["-M", "-S", str(self.socket), "-o", "ControlPersist=no"]), hello]
        self._hello = f"{mark} ", f" {mark}\n"
        self._reading = threading.Lock()
        try:
            with (self._place / "stderr").open("wb") as stderr:
                self._process = start_client(command, login.device, subprocess.PIPE, subprocess.PIPE, stderr)
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def alive(self) -> bool:
        return self._process.poll() is None

    def greet(self) -> None:
        """Wait until the login has succeeded.

        Raises:
            TransportError: it has not.
        """
        with self._reading:
            self.folder = self._read_hello(*self._hello)

    def close(self) -> None:
        """End the connection, with whatever still goes through it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GOODBYE_SECONDS)
        if self.alive():
            self._process.kill()
        with self._reading:
            end_client(self._process)
            shutil.rmtree(self._place, ignore_errors=True)

    def _read_hello(self, begin: str, end: str) -> str:
        """The private folder, which the device says when the login has succeeded."""
        said = _read_until(self._process, end.encode(), time.monotonic() + _LOGIN_SECONDS)
        noise, _, rest = said.decode(errors="replace").partition(begin)
        folder, complete, _ = rest.partition(end)
        if complete and not noise:
            return folder
        device = self._login.device
        if complete:
            raise TransportError(
                f"{device}: its login shell prints {noise[:80]!r} before any program runs",
                hint="let it print only on a terminal; in ~/.bashrc or ~/.profile there: [ -t 1 ] && echo ...",
            )
        if self.alive():
            raise LinkLostError(
                f"{device}: it did not let us in within {_LOGIN_SECONDS:.0f} s", hint=f"try {self._login.line()}"
            )
        if 0 <= self._process.returncode < _CLIENT_FAILED:
            raise TransportError(
                f"{device}: its login runs no programs: {noise.strip()[-200:]!r}", hint=f"try {self._login.line()} true"
            )
        raise ssh_error(self._login, (self._place / "stderr").read_text(errors="replace"))


def _read_until(process: subprocess.Popen[bytes], end: bytes, deadline: float) -> bytes:
    """What a program writes to stdout, up to `end`, the end of its stdout or the deadline."""
    said = b""
    if process.stdout is not None:
        stdout = process.stdout.fileno()
        while not said.endswith(end) and select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(stdout, 4096)
            if not more:
                process.wait()
                break
            said += more
    return said


def start_client(
    command: Sequence[str], device: str, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start the client in a session of its own, so that neither Ctrl-C nor a question of its reaches the terminal."""
    environment = os.environ | _ENVIRONMENT
    try:
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
        )
    except FileNotFoundError as error:
        hint = "install OpenSSH's client: sudo apt-get install openssh-client"
        raise TransportError(f"{device}: there is no program {command[0]} here", hint=hint) from error
    except OSError as error:
        raise TransportError(f"{device}: cannot start {command[0]}: {error.strerror}") from error


def end_client(process: subprocess.Popen[bytes]) -> None:
    """Kill a client that still runs; its pipes are not read to their end, since the connection holds them too."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _private_folder() -> Path:
    """A folder whose path is short enough for a socket in it; those of processes that were killed go.

    Raises:
        StorageError: it cannot be made.
    """
    usual = tempfile.gettempdir()
    place = Path(usual if len(usual) <= _FOLDER_PATH_LIMIT else "/tmp")
    for other in place.glob("ep-*-*"):
        process = other.name.split("-")[1]
        with contextlib.suppress(OSError):
            if process.isdigit() and other.stat().st_uid == os.getuid() and not psutil.pid_exists(int(process)):
                shutil.rmtree(other, ignore_errors=True)
    try:
        return Path(tempfile.mkdtemp(prefix=f"ep-{os.getpid()}-", dir=place))
    except OSError as error:
        raise storage_error(error, place) from error
