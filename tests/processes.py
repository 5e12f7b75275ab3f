"""Processes that come and go while a test looks at them: one that ended, or is another user's, is no error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import psutil


def running(holds: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The processes of this machine for which that holds, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if holds(process):
                found.append(process)
    return found


def command_words(process: psutil.Process) -> list[str]:
    """What a process was called with; nothing if it has ended."""
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def kill_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def has_ended(process: psutil.Process) -> bool:
    """Whether it has, be it that nobody has asked for its status yet."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def left_after(seconds: float, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended within that time."""
    left = list(processes)
    soon(lambda: all(has_ended(process) for process in left), seconds)
    return [process for process in left if not has_ended(process)]


def soon(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether something is so, or gets so within that time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()
