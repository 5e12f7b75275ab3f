"""adb's sync service: the copies of `adb push` and `adb pull`, in both versions of their requests.

Every request is four letters and a length. What a file system refuses comes back as FAIL with its words, after all the
bytes of the file were taken: adb reads no answer before. Written from packages/modules/adb/SYNC.TXT and
file_sync_protocol.h of the Android source tree.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgeprune.standins.adb_wire import Stream

_CHUNK = 64 * 1024
_STAT_V2 = "<IQQIIIIQqqq"
_NAME_LIMIT = 1024


class Sync:
    """One sync stream, with its requests one after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def run(self) -> None:
        """Answer requests until QUIT."""
        answers = {
            b"STAT": self._stat, b"LSTA": self._stat, b"STA2": self._stat_v2, b"LST2": self._lstat_v2,
            b"LIST": self._list, b"LIS2": self._list_v2, b"RECV": self._give, b"RCV2": self._give_v2,
            b"SEND": self._take, b"SND2": self._take_v2,
        }  # fmt: skip
        while True:
            request, size = struct.unpack("<4sI", await self._stream.read_exactly(8))
            if request == b"QUIT":
                return
            if request not in answers or size > _NAME_LIMIT:
                await self._fail(f"unknown request {request!r}")
                return
            await answers[request](os.fsdecode(await self._stream.read_exactly(size)))

    async def _fail(self, words: str) -> None:
        message = words.encode()
        await self._stream.write(b"FAIL" + struct.pack("<I", len(message)) + message)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _stat(self, path: str) -> None:
        await self._stream.write(b"STAT" + _stat_v1(path))

    async def _stat_v2(self, path: str) -> None:
        await self._stream.write(b"STA2" + _stat_v2(path, os.stat))

    async def _lstat_v2(self, path: str) -> None:
        await self._stream.write(b"LST2" + _stat_v2(path, os.lstat))

    async def _list(self, path: str) -> None:
        await self._entries(path, b"DENT", _stat_v1)

    async def _list_v2(self, path: str) -> None:
        await self._entries(path, b"DNT2", lambda entry: _stat_v2(entry, os.lstat))

    async def _entries(self, path: str, title: bytes, describe: Callable[[str], bytes]) -> None:
        try:
            names = [".", "..", *os.listdir(path)]
        except OSError:
            names = []
        for name in names:
            raw = os.fsencode(name)
            about = describe(f"{path.rstrip('/')}/{name}")
            await self._stream.write(title + about + struct.pack("<I", len(raw)) + raw)
        # an entry without a name
        await self._stream.write(b"DONE" + bytes(len(describe(path)) + 4))

    # --- pull ---------------------------------------------------------------------------------------------------------

    async def _give(self, path: str) -> None:
        try:
            file = open(path, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            return await self._fail(f"{error.strerror}")
        with file:
            while content := file.read(_CHUNK):
                await self._stream.write(b"DATA" + struct.pack("<I", len(content)) + content)
        await self._stream.write(b"DONE" + bytes(4))

    async def _give_v2(self, path: str) -> None:
        await self._stream.read_exactly(8)  # the name again, and flags for compression, which is not offered
        await self._give(path)

    # --- push ---------------------------------------------------------------------------------------------------------

    async def _take(self, request: str) -> None:
        path, _, mode = request.rpartition(",")
        if not mode.isdigit():
            return await self._fail("bad mode")
        await self._receive(path, int(mode))

    async def _take_v2(self, path: str) -> None:
        _, mode, _ = struct.unpack("<4sII", await self._stream.read_exactly(12))
        await self._receive(path, mode)

    async def _receive(self, path: str, mode: int) -> None:
        incoming = _Incoming(path, mode)
        try:
            while True:
                title, number = struct.unpack("<4sI", await self._stream.read_exactly(8))
                if title != b"DATA":
                    break
                incoming.write(await self._stream.read_exactly(number))
            refused = incoming.finish(number)
        finally:
            incoming.close()
        if refused is None:
            await self._stream.write(b"OKAY" + bytes(4))
        else:
            await self._fail(refused)


class _Incoming:
    """A file that is being pushed, or what a pushed symbolic link points to; the first refusal is kept for the end."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = Path(path)
        self._target = bytearray()
        self._file: BinaryIO | None = None
        self._refused: str | None = None
        self._is_link = stat.S_ISLNK(mode)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._is_link:
                self._file = self._path.open("wb")
                self._path.chmod(mode & 0o777)
        except OSError as error:
            self._refused = f"couldn't create file: {error.strerror}"

    def write(self, content: bytes) -> None:
        """Keep the next bytes, where nothing was refused yet."""
        if self._refused is not None:
            return
        if self._file is None:
            self._target += content
            return
        try:
            self._file.write(content)
        except OSError as error:
            self._refused = f"write failed: {error.strerror}"

    def finish(self, modified_s: int) -> str | None:
        """Put the file or link in place with its time; what was refused, if anything was."""
        try:
            if self._refused is None and self._is_link:
                self._path.unlink(missing_ok=True)
                os.symlink(bytes(self._target).rstrip(b"\0"), os.fsencode(self._path))
            self.close()
            if self._refused is None and not self._is_link:
                os.utime(self._path, (modified_s, modified_s))
        except OSError as error:
            self._refused = f"write failed: {error.strerror}"
        if self._refused is not None and self._file is not None:
            self._path.unlink(missing_ok=True)
        return self._refused

    def close(self) -> None:
        """Let the file go; what was taken of an unfinished one stays, as on a phone."""
        if self._file is not None:
            self._file.close()


def _stat_v1(path: str) -> bytes:
    try:
        about = os.lstat(path)
    except OSError:
        return bytes(12)
    return struct.pack("<3I", about.st_mode, about.st_size & 0xFFFFFFFF, int(about.st_mtime))


def _stat_v2(path: str, ask: Callable[[str], os.stat_result]) -> bytes:
    try:
        about = ask(path)
    except OSError as error:
        return struct.pack(_STAT_V2, error.errno or 0, *[0] * 10)
    return struct.pack(
        _STAT_V2, 0, about.st_dev, about.st_ino, about.st_mode, about.st_nlink, about.st_uid, about.st_gid,
        about.st_size, int(about.st_atime), int(about.st_mtime), int(about.st_ctime),
    )  # fmt: skip
