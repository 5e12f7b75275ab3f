"""The device's side of adb's wire: packets, the streams they carry, and whom a phone lets in. Start with `Connection`.

One TCP connection from an adb server carries many streams, each a service: a shell, a copy. A stream may have one
packet under way in each direction, until the other side says that it took it. Written from the protocol's description
in the Android source tree, packages/modules/adb/protocol.txt; the tests hold it against the real `adb`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable

from edgeprune.standins.adb_auth import signed_by

VERSION = 0x01000001
"""From this version on, packets carry no checksum."""
MAX_PAYLOAD = 256 * 1024
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,sendrecv_v2"

_AUTH_TOKEN, _AUTH_SIGNATURE, _AUTH_PUBLIC_KEY = 1, 2, 3
_MASK = 0xFFFFFFFF


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = map(_command, (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))


class StreamClosedError(ConnectionError):
    """The other side of a stream, or its whole connection, has gone."""


class Stream:
    """One service's two-way stream, numbered `local` here and `remote` there."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.local, self.remote = local, remote
        self._connection = connection
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._rest = b""
        self._taken = asyncio.Event()
        self._taken.set()
        self._turn = asyncio.Lock()
        self.closed = False

    async def write(self, content: bytes) -> None:
        """Send bytes; waits until the other side took what was sent before.

        Raises:
            StreamClosedError: the other side has closed the stream.
        """
        async with self._turn:
            for start in range(0, len(content), self._connection.max_payload):
                await self._taken.wait()
                if self.closed:
                    raise StreamClosedError
                self._taken.clear()
                part = content[start : start + self._connection.max_payload]
                await self._connection.send(WRTE, self.local, self.remote, part)

    async def read(self) -> bytes:
        """What came next; nothing at the end."""
        if self.closed and self._incoming.empty():
            return b""
        content = await self._incoming.get()
        if content:
            await self._connection.send(OKAY, self.local, self.remote)
        return content

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            StreamClosedError: the stream ended before.
        """
        while len(self._rest) < count:
            content = await self.read()
            if not content:
                raise StreamClosedError
            self._rest += content
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def take(self, content: bytes) -> None:
        """Bytes that came for this stream."""
        self._incoming.put_nowait(content)

    def taken(self) -> None:
        """The other side took what was sent."""
        self._taken.set()

    def end(self) -> None:
        """The other side has closed the stream."""
        self.closed = True
        self._taken.set()
        self._incoming.put_nowait(b"")

    async def close(self) -> None:
        """Close this side."""
        if not self.closed:
            self.closed = True
            await self._connection.send(CLSE, self.local, self.remote)


Service = Callable[[Stream, str], Awaitable[None]]


class Gate:
    """Whom the phone lets in, and how it behaves: what the connections share.

    Attributes:
        keys: Public keys in Android's format that were accepted.
        banner: What the phone says of itself when a connection is made.
        offline: Whether the phone accepts connections and then says nothing.
        silent: Whether what comes over living connections is left lying, as behind a cut cable.
    """

    def __init__(self, keys: list[bytes], banner: str) -> None:
        self.keys = keys
        self.banner = banner
        self.offline = False
        self.silent = False


class Connection:
    """One adb server's connection, from its first packet to its end."""

    def __init__(
        self, gate: Gate, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._gate, self._service, self._reader, self._writer = gate, service, reader, writer
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stream = 0
        self._version = 0x01000000
        self._token = os.urandom(20)
        self._open = False
        self.max_payload = 4096

    async def send(self, command: int, first: int, second: int, content: bytes = b"") -> None:
        """Write one packet."""
        checksum = 0 if self._version >= VERSION else sum(content) & _MASK
        header = struct.pack("<6I", command, first, second, len(content), checksum, command ^ _MASK)
        self._writer.write(header + content)
        await self._writer.drain()

    async def run(self) -> None:
        """Answer packets until the connection ends; then every stream ends, and with it the stdin of its program."""
        try:
            while await self._answer():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.end()
            self._writer.close()

    def drop(self) -> None:
        """Cut the connection, as a pulled cable does."""
        self._writer.transport.abort()

    async def let_in(self) -> None:
        """Say that this server may come in, though its key was not known when it asked."""
        if not self._open:
            await self._greet()

    async def _answer(self) -> bool:
        """Read and answer one packet; False at nonsense, which ends the connection."""
        command, first, second, size, _, magic = struct.unpack("<6I", await self._reader.readexactly(24))
        if magic != command ^ _MASK or size > MAX_PAYLOAD:
            return False
        content = await self._reader.readexactly(size) if size else b""
        while self._gate.silent or self._gate.offline:
            await asyncio.sleep(0.05)
        if command == CNXN:
            await self._hello(first, second)
        elif command == AUTH:
            await self._check_key(first, content)
        elif not self._open:
            return False
        elif command == OPEN:
            await self._start(first, content.rstrip(b"\0").decode(errors="surrogateescape"))
        else:
            await self._pass_on(command, first, self._streams.get(second), content)
        return True

    async def _hello(self, version: int, max_payload: int) -> None:
        self._version, self.max_payload = min(version, VERSION), min(max_payload, MAX_PAYLOAD)
        await self.send(AUTH, _AUTH_TOKEN, 0, self._token)

    async def _check_key(self, kind: int, content: bytes) -> None:
        # an unknown public key opens a dialog on a phone's screen; until somebody accepts, the phone says nothing
        if kind != _AUTH_SIGNATURE:
            return
        if any(signed_by(key, self._token, content) for key in self._gate.keys):
            await self._greet()
        else:
            self._token = os.urandom(20)
            await self.send(AUTH, _AUTH_TOKEN, 0, self._token)

    async def _greet(self) -> None:
        self._open = True
        banner = f"device::{self._gate.banner};features={FEATURES}"
        await self.send(CNXN, VERSION, MAX_PAYLOAD, banner.encode())

    async def _start(self, remote: int, name: str) -> None:
        self._last_stream += 1
        stream = self._streams[self._last_stream] = Stream(self, self._last_stream, remote)
        await self.send(OKAY, stream.local, remote)
        task = asyncio.create_task(self._serve(stream, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: Stream, name: str) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                await self._service(stream, name)
            finally:
                await stream.close()
        self._streams.pop(stream.local, None)

    async def _pass_on(self, command: int, remote: int, stream: Stream | None, content: bytes) -> None:
        if stream is None:
            return
        if command == WRTE:
            stream.take(content)
        elif command == OKAY:
            stream.taken()
        elif command == CLSE:
            del self._streams[stream.local]
            stream.end()
            await self.send(CLSE, stream.local, remote)
