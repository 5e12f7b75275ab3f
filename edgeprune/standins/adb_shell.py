"""adb's shell service: a command runs, its three streams apart, its exit status in band ("shell v2").

A connection that goes away closes the command's pipes and does no more, as on a phone: a command that reads no stdin
and writes nothing goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct

from edgeprune.standins.adb_wire import Stream, StreamClosedError

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK = 32 * 1024
SHELL = "/system/bin/sh"
ENVIRONMENT = {
    "PATH": "/product/bin:/system/bin:/vendor/bin",
    "ANDROID_ROOT": "/system",
    "ANDROID_DATA": "/data",
    "HOME": "/",
    "SHELL": SHELL,
    "TMPDIR": "/data/local/tmp",
    "USER": "shell",
    "LOGNAME": "shell",
}


async def shell(stream: Stream, options: str, line: str) -> None:
    """Run a line of shell; `options` are what stands before the colon, such as "shell,v2,raw"."""
    apart = "v2" in options.split(",")
    out, out_end = os.pipe()
    err, err_end = os.pipe() if apart else (out, os.dup(out_end))
    try:
        process = await asyncio.create_subprocess_exec(
            SHELL, *(["-c", line] if line else []),
            stdin=asyncio.subprocess.PIPE, stdout=out_end, stderr=err_end,
            start_new_session=True, env=ENVIRONMENT, cwd="/",
        )  # fmt: skip
    finally:
        os.close(out_end)
        os.close(err_end)
    feeder = asyncio.create_task(_feed(stream, process, apart))
    try:
        pumps = [_pump(stream, out, _STDOUT if apart else None)]
        if apart:
            pumps.append(_pump(stream, err, _STDERR))
        await asyncio.gather(*pumps)
        status = await process.wait()
        if apart:
            await stream.write(_packet(_EXIT, bytes([status if status >= 0 else 128 - status])))
    finally:
        feeder.cancel()
        if process.stdin is not None:
            process.stdin.close()


def _packet(kind: int, content: bytes) -> bytes:
    return struct.pack("<BI", kind, len(content)) + content


async def _pump(stream: Stream, descriptor: int, kind: int | None) -> None:
    """Send what comes out of a pipe; without a listener the pipe is closed, so that its writer notices."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    try:
        while content := await reader.read(_CHUNK):
            await stream.write(content if kind is None else _packet(kind, content))
    except StreamClosedError:
        pass
    finally:
        transport.close()


async def _feed(stream: Stream, process: asyncio.subprocess.Process, apart: bool) -> None:
    """Hand on what comes for the command's stdin; its end, or the stream's, closes it."""
    stdin = process.stdin
    if stdin is None:
        return
    try:
        while content := await _next_input(stream, apart):
            # a command that reads no more is no reason to end: what it wrote is still on the way
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                stdin.write(content)
                await stdin.drain()
    except StreamClosedError:
        pass
    finally:
        stdin.close()


async def _next_input(stream: Stream, apart: bool) -> bytes:
    if not apart:
        return await stream.read()
    while True:
        kind, size = struct.unpack("<BI", await stream.read_exactly(5))
        content = await stream.read_exactly(size)
        if kind == _CLOSE_STDIN or (kind == _STDIN and content):
            return content if kind == _STDIN else b""
