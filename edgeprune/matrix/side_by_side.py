"""Several devices at once: a thread for each, and this process's main thread for the laptop's own work beside them.

Start with `work_side_by_side`. Ctrl-C, or an error that concerns the whole run, stops all of them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeprune.matrix.faults import StoppedError

_STOP_SECONDS = 8.0

LaptopWork = Callable[[], None]


class DeviceWork(Protocol):
    """All that is to be done on one device."""

    name: str

    def carry_out(self) -> None:
        """Do it; raise only what concerns the whole run."""

    def abort(self) -> None:
        """End at once what is under way; called from another thread, after the stop was set."""


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


class Laptop:
    """Work that devices' threads leave to the main thread: Ctrl-C ends the programs that it waits for."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[LaptopWork | _Ended] = queue.SimpleQueue()

    def later(self, work: LaptopWork) -> None:
        """Leave this to the main thread."""
        self._events.put(work)

    def thread_ended(self, error: BaseException | None) -> None:
        """A device's thread has ended, with the error that ended it."""
        self._events.put(_Ended(error))

    def serve(self, threads: int) -> None:
        """Do what is left here until so many threads have ended; raises the error of one that failed."""
        while threads or not self._events.empty():
            event = self._events.get()
            if not isinstance(event, _Ended):
                event()
            elif event.error is not None:
                raise event.error
            else:
                threads -= 1


def work_side_by_side(works: Sequence[DeviceWork], laptop: Laptop, stop: threading.Event) -> None:
    """Carry out all works at the same time; what one leaves to the laptop is done here, in the order it came.

    When this returns or raises, every thread has ended, or was told to and given 8 s.
    """

    def carry_out(work: DeviceWork) -> None:
        try:
            work.carry_out()
        except StoppedError:
            laptop.thread_ended(None)
        except BaseException as error:
            laptop.thread_ended(error)
        else:
            laptop.thread_ended(None)

    # daemons: one that hangs in a dead link must not keep the process alive
    threads = [threading.Thread(target=carry_out, args=(work,), name=work.name, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        laptop.serve(len(threads))
    except BaseException:
        stop.set()
        for work in works:
            work.abort()
        raise
    finally:
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
