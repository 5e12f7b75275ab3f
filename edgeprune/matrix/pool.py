"""Preparing processes, seen from the run: hand out tasks as they become ready, collect folders and failures.

Start with `prepare_all`. Two tasks that need the same earlier one wait for it, so nothing is made twice; a task that
fails fails those that need it, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from edgeprune.errors import StorageError
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.tasks import Task, needs, task_to_json
from edgeprune.storage import storage_error

_MAX_PROCESSES = 4
FAILURES_LOG = "failures.log"

Events = queue.SimpleQueue[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Prepared:
    """A task's folder, or why there is none; `inherited` if only because something it needs failed."""

    task: Task
    folder: Path | None
    reason: str = ""
    inherited: bool = False


class Watcher(Protocol):
    """Who is told of the preparation's progress."""

    def preparing(self, running: Sequence[str], done: int, total: int) -> None:
        """`running` are the titles of the tasks in work, with what they are at."""

    def prepared(self, result: Prepared) -> None:
        """A task has ended."""


def prepare_all(tasks: Iterable[Task], cache: Cache, logs: Path, watcher: Watcher) -> dict[str, Prepared]:
    """Carry out tasks and what they need; returns the results by `identity`.

    What processes print goes into the folder `logs`, as do the traces of failures. Every process started here has ended
    when this returns or raises, KeyboardInterrupt included.

    Raises:
        StorageError: the disk is full or cannot be written; going on would be in vain.
    """
    board = _Board(tasks)
    pool = _Pool(cache, logs, max(1, min(os.cpu_count() or 1, _MAX_PROCESSES, board.total)))
    cache.sweep()
    try:
        while board.unfinished:
            pool.hand_out(board)
            watcher.preparing(pool.running, len(board.results), board.total)
            ended = pool.take_event()
            for result in board.settle(ended) if ended else []:
                watcher.prepared(result)
    finally:
        pool.kill()
        cache.sweep()
    return board.results


def identity(task: Task) -> str:
    """A text that is equal for equal tasks."""
    return json.dumps(task_to_json(task), sort_keys=True)


class _Board:
    """Which tasks wait, which are ready, which have ended."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: dict[str, Task] = {}
        for task in tasks:
            self._add(task)
        self._given_out: set[str] = set()
        self.results: dict[str, Prepared] = {}
        self.total = len(self._tasks)

    @property
    def unfinished(self) -> bool:
        return len(self.results) < self.total

    def take_ready(self) -> Task | None:
        """The first task whose needs are met."""
        for name, task in self._tasks.items():
            needed = needs(task)
            ready = needed is None or identity(needed) in self.results
            if ready and name not in self._given_out:
                self._given_out.add(name)
                return task
        return None

    def settle(self, result: Prepared) -> list[Prepared]:
        """Write down a result; where it is a failure, those that needed it fail with it."""
        settled = [result]
        self.results[identity(result.task)] = result
        if result.folder is None:
            for name, task in self._tasks.items():
                needed = needs(task)
                if needed is not None and identity(needed) == identity(result.task) and name not in self._given_out:
                    self._given_out.add(name)
                    settled += self.settle(Prepared(task, None, result.reason, inherited=True))
        return settled

    def _add(self, task: Task) -> None:
        needed = needs(task)
        if needed is not None:
            self._add(needed)
        self._tasks.setdefault(identity(task), task)


class _Pool:
    """The processes; they are started only as they are needed."""

    def __init__(self, cache: Cache, logs: Path, size: int) -> None:
        self._cache = cache
        self._logs = logs
        self._size = size
        self._threads = max(1, (os.cpu_count() or 1) // size)
        self._processes: list[_Process] = []
        self._events: Events = queue.SimpleQueue()

    @property
    def running(self) -> list[str]:
        return [process.words for process in self._processes if process.task]

    def hand_out(self, board: _Board) -> None:
        """Give every idle process a ready task."""
        while True:
            idle = next((process for process in self._processes if process.alive and process.task is None), None)
            if idle is None and sum(process.alive for process in self._processes) >= self._size:
                return
            task = board.take_ready()
            if task is None:
                return
            if idle is None:
                idle = _Process(len(self._processes), self._threads, self._logs, self._events)
                self._processes.append(idle)
            idle.give(task, self._cache.root)

    def take_event(self) -> Prepared | None:
        """Wait a moment for an event; the result if one ended a task."""
        try:
            number, event = self._events.get(timeout=0.5)
        except queue.Empty:
            return None
        return self._processes[number].take(event)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()


class _Process:
    """One preparing process and the task it is at."""

    def __init__(self, number: int, threads: int, logs: Path, events: Events) -> None:
        self._threads = threads
        self._logs = logs
        try:
            self._log: IO[bytes] = (logs / f"preparing-{number}.log").open("ab")
        except OSError as error:
            raise storage_error(error, logs) from error
        self._child = subprocess.Popen(
            # -P: a user's folder must not shadow the standard library; a user's own model is imported on purpose only
            [sys.executable, "-P", "-m", "edgeprune.matrix.stage_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self.alive = True
        self.task: Task | None = None
        self._progress = ""
        threading.Thread(target=self._listen, args=(number, events), daemon=True).start()

    @property
    def words(self) -> str:
        """What the process is at, for a progress line."""
        title = self.task.title if self.task else ""
        return f"{title}: {self._progress}" if self._progress else title

    def give(self, task: Task, cache: Path) -> None:
        self.task, self._progress = task, ""
        request = {"cache": str(cache), "threads": self._threads, "work": task_to_json(task)}
        stdin = self._child.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the listener tells of its end
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()

    def take(self, event: dict[str, Any]) -> Prepared | None:
        """Take an event of this process; a result ends its task."""
        task = self.task
        if "progress" in event:
            self._progress = str(event["progress"])
            return None
        self.alive = "ended" not in event
        if task is None:
            return None
        self.task = None
        if "done" in event:
            return Prepared(task, Path(event["done"]))
        if "failed" in event:
            return self._failed(task, event["failed"])
        log = f"logs/{Path(self._log.name).name}"
        return Prepared(task, None, f"{task.title}: the process ended with status {event['ended']}; see {log}")

    def kill(self) -> None:
        """End the process and all it started, at once; its files are whole or not there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._log.close()

    def _failed(self, task: Task, failed: dict[str, Any]) -> Prepared:
        if failed["type"] == StorageError.__name__:
            raise StorageError(failed["message"], hint=failed["hint"])
        evidence = "\n".join(part for part in (failed["detail"], failed["trace"]) if part)
        with contextlib.suppress(OSError), (self._logs / FAILURES_LOG).open("a", encoding="utf-8") as file:
            file.write(f"{task.title}: {failed['message']}\n{evidence}\n")
        return Prepared(task, None, "; ".join(part for part in (failed["message"], failed["hint"]) if part))

    def _listen(self, number: int, events: Events) -> None:
        stdout = self._child.stdout
        if stdout is not None:
            for line in stdout:
                with contextlib.suppress(ValueError):  # a line that a killed process did not finish
                    events.put((number, json.loads(line)))
        events.put((number, {"ended": self._child.wait()}))
