"""The way over ssh: OpenSSH's own client, so that ~/.ssh/config, jump hosts, agents and certificates just work.

Start with `SshLink`. One connection is opened for the link (`_Connection`) and all programs and files go through it;
files as streams of `cat`, which every server offers, where sftp is missing on small boards (50 MB over loopback took
0.3 to 0.45 s against 0.23 to 0.33 by sftp: no network of a board is that fast).
"""

from __future__ import annotations

import contextlib
import os
import re
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

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.storage import storage_error
from edgeprune.transport.link import QUERY_SECONDS, TRANSFER_SECONDS, Completed
from edgeprune.transport.quoting import shell_line
from edgeprune.transport.ssh_words import Login, ssh_error

_CONNECT_SECONDS = 15
_LOGIN_SECONDS = 45.0  # a Zero 2 W under load takes its time for keys
_SLOWEST_BYTES_PER_SECOND = 100_000

# TCP sends again 25 and 51 s after a cut began, so a cut of 30 s is over for TCP by then; a dead link is found 60 s
# after the last answer.
_ALIVE = ("-o", "ServerAliveInterval=12", "-o", "ServerAliveCountMax=4", "-o", f"ConnectTimeout={_CONNECT_SECONDS}")
# Nothing is asked for, accepted or forwarded that the user did not ask for here, whatever his configuration says.
_STRICT = (
    "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
    "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none", "-o", "LogLevel=INFO",
)  # fmt: skip
_ENVIRONMENT = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}

_HELLO = 'echo "$1 ${XDG_CACHE_HOME:-$HOME/.cache}/edgeprune $1"; exec cat >/dev/null'
_IN_BAND = 'mark=$1; shift; "$@"; echo "$mark $?" >&2'
_FOLDER_PATH_LIMIT = 60  # a socket's path may have 104 bytes, 17 of them for the name that ssh binds first
_CLIENT_FAILED = 255
_GOODBYE_SECONDS = 2.0


class SshLink:
    """A device that runs an ssh server.

    Args:
        name: The device as a matrix writes it, for messages.
        host: Its name, address or alias of ~/.ssh/config.
        user: Who logs in; None leaves it to ssh.
        port: Where its server listens; None leaves it to ssh.
        identity: The private key to use; None leaves it to ssh.
        known_hosts: The file with its host key instead of the user's own.
        options: More options of ssh, such as ("-F", "config") or ("-o", "ConnectTimeout=60").
    """

    def __init__(
        self,
        name: str,
        host: str,
        user: str | None = None,
        port: int | None = None,
        identity: Path | None = None,
        known_hosts: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        where = [*options]
        if port is not None:
            where += ["-p", str(port)]
        if identity is not None:
            where += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
        if known_hosts is not None:
            where += ["-o", f'UserKnownHostsFile="{known_hosts}"']
        self._where = where
        self._target = f"{user}@{host}" if user else host
        self._login = Login(name, (*where, self._target))
        self._connection: _Connection | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> str:
        return self._connected().folder

    def check(self) -> None:
        self._connected()

    def command(self, arguments: Sequence[str]) -> list[str]:
        through = ["-S", str(self._connected().socket), "-o", "ControlMaster=no"]
        return [*self._client(through), f"exec {shell_line(arguments)}"]

    def call(self, arguments: Sequence[str], *, stdin: bytes = b"", timeout: float = QUERY_SECONDS) -> Completed:
        return self._run(arguments, stdin, subprocess.PIPE, timeout)

    def send(self, local: Path, remote: str) -> None:
        try:
            with local.open("rb") as source:
                patience = _transfer_seconds(local.stat().st_size)
                done = self._run(
                    ["sh", "-c", 'umask 077; exec cat >"$1"', "sh", remote], source, subprocess.PIPE, patience
                )
        except OSError as error:
            raise TransportError(f"{self.name}: cannot read {local}: {error.strerror}") from error
        self._succeeded(done, f"cannot write {remote}")

    def fetch(self, remote: str, local: Path) -> None:
        size = self.call(["sh", "-c", 'wc -c <"$1"', "sh", remote])
        self._succeeded(size, f"cannot read {remote}")
        try:
            with local.open("wb") as destination:
                done = self._run(["cat", remote], b"", destination, _transfer_seconds(int(size.stdout)))
        except OSError as error:
            raise storage_error(error, local) from error
        self._succeeded(done, f"cannot read {remote}")

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _succeeded(self, done: Completed, what: str) -> None:
        if done.status:
            detail = done.stderr.decode(errors="replace").strip()
            raise TransportError(f"{self.name}: {what}", detail=detail or None)

    def _client(self, options: Sequence[str]) -> list[str]:
        return [
            "ssh",
            *_STRICT,
            *options,
            *self._where,
            *_ALIVE,
            "--",
            self._target,
        ]  # of a setting the first one counts

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is not None and not self._connection.alive():
                self._connection.close()
                self._connection = None
            if self._connection is None:
                self._connection = _Connection(self._client, self._login)
            return self._connection

    def _run(
        self, arguments: Sequence[str], stdin: bytes | IO[bytes], stdout: int | IO[bytes], seconds: float
    ) -> Completed:
        """Run to the end; what goes to a file is not in the answer."""
        mark = secrets.token_hex(8)
        command = self.command(["sh", "-c", _IN_BAND, "sh", mark, *arguments])
        given, source = (stdin, subprocess.PIPE) if isinstance(stdin, bytes) else (None, stdin)
        process = _start(command, self.name, source, stdout, subprocess.PIPE)
        try:
            taken, stderr = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise self._silent(seconds) from None
        finally:
            _end(process)
        said, found, rest = stderr.rpartition(mark.encode() + b" ")
        status = re.match(rb"(\d+)\n", rest)
        # the mark alone is not enough: the connection may have broken before the last of stdout came through
        if not found or status is None or process.returncode:
            raise ssh_error(self._login, stderr.decode(errors="replace"))
        return Completed(int(status[1]), taken or b"", said + rest[status.end() :])

    def _silent(self, seconds: float) -> LinkLostError:
        hint = f"see whether it still answers: {self._login.line()} true"
        return LinkLostError(f"{self.name}: no answer for {seconds:.0f} s", hint=hint)


class _Connection:
    """The one connection, kept open by a program that reads from this process: it ends with it, however that ends."""

    def __init__(self, client: Callable[[Sequence[str]], list[str]], login: Login) -> None:
        self._login = login
        self._place = _short_folder()
        self.socket = self._place / "s"
        mark = secrets.token_hex(8)
        hello = "exec " + shell_line(["sh", "-c", _HELLO, "sh", mark])
        command = [*client(["-M", "-S", str(self.socket), "-o", "ControlPersist=no"]), hello]
        try:
            with (self._place / "stderr").open("wb") as stderr:
                self._process = _start(command, login.device, subprocess.PIPE, subprocess.PIPE, stderr)
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise
        try:
            self.folder = self._read_hello(mark)
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the connection, with whatever still goes through it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GOODBYE_SECONDS)
        _end(self._process)
        shutil.rmtree(self._place, ignore_errors=True)

    def _read_hello(self, mark: str) -> str:
        """The private folder, which the device says when the login has succeeded."""
        said = _read_until(self._process, f" {mark}\n".encode(), time.monotonic() + _LOGIN_SECONDS)
        noise, _, rest = said.decode(errors="replace").partition(f"{mark} ")
        folder, complete, _ = rest.partition(f" {mark}\n")
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
        if self._process.returncode != _CLIENT_FAILED:
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


def _start(
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a client that still runs; its pipes are not read to their end, since the connection holds them too."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _short_folder() -> Path:
    """A private folder whose path is short enough for a socket in it."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="ep-", dir=usual if len(usual) <= _FOLDER_PATH_LIMIT else "/tmp"))


def _transfer_seconds(size: int) -> float:
    return TRANSFER_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
