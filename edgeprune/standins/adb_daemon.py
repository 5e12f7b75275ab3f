"""A phone's adb daemon over TCP on loopback, for tests and for users without a phone.

The real `adb` talks to it as to a phone. `phone` starts it with its adb server; then it goes where the Android-like
root is its file system and AArch64 programs run under qemu-user, and answers there: adb's connections, and tests that
want it to misbehave, at the socket `control` of its folder. Start reading at `main`, then `Phone.obey`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edgeprune.standins import namespace, ssh_keys
from edgeprune.standins.adb_shell import shell
from edgeprune.standins.adb_sync import Sync
from edgeprune.standins.adb_wire import Connection, Gate, Stream
from edgeprune.standins.supervisor import die_with_parent
from edgeprune.storage import write_whole

READY, CONTROL = "daemon.json", "control"
"""In the phone's folder: where it listens, {"port": P}, as soon as it does; and the socket at which tests ask."""
DATA = Path("/data")
_SETTINGS = "settings.json"
_BALLAST = DATA / ".ballast"
_FOLDERS = {"local": 0o751, "local/tmp": 0o771, "media": 0o770, "media/0": 0o770}


@dataclass(frozen=True)
class Settings:
    """What a phone is started with.

    Attributes:
        setting: Its root and what is mounted in it, as `namespace.Setting` takes it.
        keys: Lines of public keys that may come in.
        model: What the phone is called.
        server: Command of its adb server, which lives as long as the phone.
        environment: What that has in its environment beside this process's own.
    """

    setting: dict[str, Any]
    keys: list[str]
    model: str
    server: list[str]
    environment: dict[str, str]

    def words(self, folder: Path) -> list[str]:
        """The command line that starts the phone of that folder."""
        write_whole(folder / _SETTINGS, json.dumps(vars(self)).encode())
        return [sys.executable, "-c", f"import {__name__} as own; own.main()", str(folder.absolute())]


class Phone:
    """The running daemon: its connections, and what tests make it do."""

    def __init__(self, keys: list[str], model: str) -> None:
        self._keys = [key.encode() for key in keys]
        product = f"ro.product.name=stand_in;ro.product.model={model};ro.product.device=stand_in"
        self._gate = Gate(list(self._keys), product)
        self._connections: set[Connection] = set()

    async def serve_adb(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of an adb server."""
        connection = Connection(self._gate, _service, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One wish of a test, as a JSON line; the answer is {"ok": true}, or {"error": words}."""
        line = await reader.readline()
        try:
            await self.obey(json.loads(line))
            answer: dict[str, Any] = {"ok": True}
        except (ValueError, KeyError, TypeError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def obey(self, order: dict[str, Any]) -> None:
        """Do what a test wants.

        {"do": "authorize", "allowed": false}    know no key any more, and cut the connections; true: accept the dialog
        {"do": "drop"}                           cut the connections, as a pulled cable does
        {"do": "offline", "offline": true}       cut them, and answer no more until false
        {"do": "silent", "silent": true}         leave what comes lying, without cutting anything, until false
        {"do": "disk", "free_bytes": 1000000}    leave so much of /data; null: all of it
        {"do": "kill"}                           end all programs and cut the connections; files stay
        """
        actions: dict[str, Callable[..., Awaitable[None] | None]] = {
            "authorize": self._authorize, "drop": self._drop, "offline": self._set_offline, "silent": self._set_silent,
            "disk": _fill_disk, "kill": self._kill,
        }  # fmt: skip
        words = dict(order)
        result = actions[words.pop("do")](**words)
        if result is not None:
            await result

    async def _authorize(self, allowed: bool) -> None:
        self._gate.keys = list(self._keys) if allowed else []
        if not allowed:
            return self._drop()
        for connection in list(self._connections):
            await connection.let_in()

    def _drop(self) -> None:
        for connection in list(self._connections):
            connection.drop()

    def _set_offline(self, offline: bool) -> None:
        self._gate.offline = offline
        self._drop()

    def _set_silent(self, silent: bool) -> None:
        self._gate.silent = silent

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all here but the first process and this one
        self._drop()


async def _service(stream: Stream, name: str) -> None:
    kind, _, rest = name.partition(":")
    if kind.split(",")[0] in ("shell", "exec"):
        await shell(stream, kind, rest)
    elif kind == "sync":
        await Sync(stream).run()


def _fill_disk(free_bytes: int | None) -> None:
    _BALLAST.unlink(missing_ok=True)
    if free_bytes is None:
        return
    about = os.statvfs(DATA)
    with _BALLAST.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, about.f_bavail * about.f_frsize - free_bytes))


def main() -> None:
    """What `Settings.words` starts: a phone, until it is killed."""
    os.chdir(sys.argv[1])
    settings = Settings(**json.loads(Path(_SETTINGS).read_text()))
    adb = socket.create_server((ssh_keys.HOST, 0))
    control = socket.socket(socket.AF_UNIX)
    control.bind(CONTROL)  # relative, since a socket's path may have 107 bytes only
    server = subprocess.Popen(
        settings.server,
        env={**os.environ, **settings.environment}, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
    )  # fmt: skip
    phone = Phone(settings.keys, settings.model)
    try:
        with Path(READY).open("w") as ready:
            setting = namespace.Setting(**settings.setting)
            sys.exit(namespace.enter(setting, lambda: _be_phone(phone, adb, control, ready)))
    finally:
        server.kill()


def _be_phone(phone: Phone, adb: socket.socket, control: socket.socket, ready: TextIO) -> None:
    """The first process of the phone takes in orphans, its child answers."""
    child = os.fork()
    while child:
        gone, _ = os.wait()
        if gone == child:
            return
    for name, mode in _FOLDERS.items():
        (DATA / name).mkdir(mode=mode)
    asyncio.run(_serve(phone, adb, control, ready))


async def _serve(phone: Phone, adb: socket.socket, control: socket.socket, ready: TextIO) -> None:
    async with (
        await asyncio.start_server(phone.serve_adb, sock=adb) as server,
        await asyncio.start_unix_server(phone.serve_control, sock=control),
    ):
        json.dump({"port": adb.getsockname()[1]}, ready)
        ready.close()
        await server.serve_forever()
