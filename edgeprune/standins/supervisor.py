"""A stand-in's programs in the background: one process that starts them and takes them along when it ends.

    python -m edgeprune.standins.supervisor [--bound] RECORD LOG PROGRAM [ARGUMENT...]

returns as soon as PROGRAM runs; from then on it lives until it ends by itself, until `stop(RECORD)`, or, with --bound,
until the pipe on stdin is closed: by whoever holds its other end, or by the end of that process, whatever ends it.
Start with `start` and `stop`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.errors import DeviceError
from edgeprune.storage import write_whole

RECORD_FILE, LOG_FILE = "process.json", "log"
"""What a stand-in's folder calls the record and the log of its program."""
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER


def start(
    record: Path,
    log: Path,
    arguments: Sequence[str],
    *,
    bound_to: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program in the background, in the folder of its record.

    Args:
        record: Where its process is noted, for `stop` and `is_running`.
        log: Where its stdout and stderr go.
        arguments: The program and its arguments.
        bound_to: Read end of a pipe; when nobody holds the other end any more, the program is ended.
        environment: Its variables; None: those of this process.

    Raises:
        DeviceError: it cannot be started.
    """
    bound = [] if bound_to is None else ["--bound"]
    files = [str(record.absolute()), str(log.absolute())]
    own = [sys.executable, "-m", "edgeprune.standins.supervisor", *bound, *files, *arguments]
    # the background process keeps no end of a pipe of ours: only --bound's stdin
    done = subprocess.run(
        own, stdin=subprocess.DEVNULL if bound_to is None else bound_to,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, cwd=record.parent,
        env={**(environment or os.environ), **_importable()},
    )  # fmt: skip
    if done.returncode:
        raise DeviceError(f"{arguments[0]} cannot be started", detail=tail(log))


def is_running(record: Path) -> bool:
    """Whether the program that was noted there still runs."""
    process = _recorded(record)
    return process is not None and _start_time(process[0]) == process[1]


def stop(record: Path) -> None:
    """End the program and all that it started, and wait until they are gone; nothing happens where none runs.

    Raises:
        DeviceError: it does not end.
    """
    process = _recorded(record)
    deadline = time.monotonic() + _STOP_SECONDS
    while process is not None and is_running(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process[0], signal.SIGTERM)
        if time.monotonic() > deadline:
            raise DeviceError(f"process {process[0]} does not end", hint=f"end it by hand: kill -9 {process[0]}")
        time.sleep(_POLL_SECONDS)
    record.unlink(missing_ok=True)


def tail(log: Path, size: int = 2000) -> str | None:
    """The end of a log, for an error's detail."""
    if not log.is_file():
        return None
    return log.read_bytes()[-size:].decode(errors="replace").strip() or None


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends; undone by a change of user."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _importable() -> dict[str, str]:
    """The module search path that this process has: the other one may be started from any folder."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _recorded(record: Path) -> tuple[int, int] | None:
    try:
        noted = json.loads(record.read_text())
        return int(noted["pid"]), int(noted["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _start_time(process: int) -> int | None:
    """When a process was started, in the kernel's ticks: a number alone may name another process by now."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _supervise(arguments: Sequence[str], record: Path, log: Path, is_bound: bool, ready: int) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent
        )
    write_whole(record, json.dumps({"pid": os.getpid(), "started": _start_time(os.getpid())}).encode())
    os.write(ready, b"1")
    os.close(ready)
    ended = os.pidfd_open(child.pid)
    select.select([ended, reader, *([0] if is_bound else [])], [], [])
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        # with the program, what it started and left behind: all of that has become a child of this process
        for process in children:
            os.kill(int(process), signal.SIGKILL)
        os.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Start the background process; 0 once its program runs."""
    parser = argparse.ArgumentParser(prog="supervisor")
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("record", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    told, ready = os.pipe()
    if os.fork():
        os.close(ready)
        return 0 if os.read(told, 1) else 1
    os.close(told)
    try:
        _supervise(given.arguments, given.record, given.log, given.bound, ready)
    except OSError as error:
        with given.log.open("a") as log:
            log.write(f"{error}\n")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
