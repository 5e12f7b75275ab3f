"""The way over ssh: OpenSSH's own client, so that ~/.ssh/config, jump hosts, agents and certificates just work.

Start with `SshLink`. One connection (`ssh_connection.Connection`) is opened for the link, and all programs and files go
through it; files as streams of `cat`, which every server offers, where small boards may have no sftp.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.storage import storage_error
from edgeprune.transport.in_band import InBand
from edgeprune.transport.link import QUERY_SECONDS, TRANSFER_SECONDS, Completed
from edgeprune.transport.quoting import shell_line
from edgeprune.transport.ssh_connection import Connection, end_client, start_client
from edgeprune.transport.ssh_words import Login, ssh_error

_CONNECT_SECONDS = 15
_SLOWEST_BYTES_PER_SECOND = 100_000

# TCP sends again 25 and 51 s after a cut began, so a cut of 30 s is over for TCP by then; a dead link is found 60 s
# after the last answer.
_ALIVE = ("-o", "ServerAliveInterval=12", "-o", "ServerAliveCountMax=4", "-o", f"ConnectTimeout={_CONNECT_SECONDS}")
# Nothing is asked for, accepted or forwarded that the user did not ask for here, whatever his configuration says.
_STRICT = (
    "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
    "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none", "-o", "LogLevel=INFO",
)  # fmt: skip


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
            # ssh-copy-id takes -i too, for the hints; but ssh does not find such a file where % has a meaning
            named = ["-i", str(identity)] if "%" not in str(identity) else ["-o", f"IdentityFile={_word(identity)}"]
            where += [*named, "-o", "IdentitiesOnly=yes"]
        if known_hosts is not None:
            where += ["-o", f"UserKnownHostsFile={_word(known_hosts)}"]
        self._where = where
        self._target = f"{user}@{host}" if user else host
        self._login = Login(name, (*where, self._target))
        self._folder: str | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> str:
        if self._folder is None:
            self._folder = self._connected().folder
        return self._folder

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
        said = self.call(["sh", "-c", 'wc -c <"$1"', "sh", remote])
        self._succeeded(said, f"cannot read {remote}")
        try:
            with local.open("wb") as destination:
                done = self._run(["cat", remote], b"", destination, _transfer_seconds(said.size(self.name)))
        except OSError as error:
            raise storage_error(error, local) from error
        self._succeeded(done, f"cannot read {remote}")

    def close(self) -> None:
        """Whoever waits for something over this link, or for the link itself, sees it broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

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

    def _connected(self) -> Connection:
        with self._lock:
            connection = self._connection
            if connection is not None and connection.alive():
                return connection
            if connection is not None:
                connection.close()
            # `close` must find it while it still waits for the device
            connection = self._connection = Connection(self._client, self._login)
            try:
                connection.greet()
            except BaseException:
                connection.close()
                self._connection = None
                raise
            return connection

    def _run(
        self, arguments: Sequence[str], stdin: bytes | IO[bytes], stdout: int | IO[bytes], seconds: float
    ) -> Completed:
        """Run to the end; what goes to a file is not in the answer."""
        program = InBand(arguments)
        command = self.command(program.words)
        given, source = (stdin, subprocess.PIPE) if isinstance(stdin, bytes) else (None, stdin)
        process = start_client(command, self.name, source, stdout, subprocess.PIPE)
        try:
            taken, stderr = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise self._silent(seconds) from None
        finally:
            end_client(process)
        completed = program.completed(process.returncode, taken or b"", stderr)
        if completed is None:
            raise ssh_error(self._login, stderr.decode(errors="replace"))
        return completed

    def _silent(self, seconds: float) -> LinkLostError:
        hint = f"see whether it still answers: {self._login.line()} true"
        return LinkLostError(f"{self.name}: no answer for {seconds:.0f} s", hint=hint)


def _word(path: Path) -> str:
    """A path as one word of ssh's configuration (ssh_config(5)), in which % begins a token."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _transfer_seconds(size: int) -> float:
    return TRANSFER_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
