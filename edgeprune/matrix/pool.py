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

from edgeprune.matrix.stage_process import task_to_json
from edgeprune.matrix.stages import Task, needs

_MAX_PROCESSES = 4


@dataclass(frozen=True)
class Prepared:
    """A task's folder, or why there is none."""

    task: Task
    folder: Path | None
    reason: str = ""
    trace: str = ""


class Watcher(Protocol):
    """Who is told of the preparation's progress."""

    def preparing(self, running: Sequence[str], done: int, total: int) -> None:
        """`running` are the titles of the tasks in work, with what they are at."""

    def prepared(self, result: Prepared) -> None:
        """A task has ended."""


def prepare_all(tasks: Iterable[Task], cache: Path, log_folder: Path, watcher: Watcher) -> dict[str, Prepared]:
    """Carry out tasks and what they need; returns the results by `identity`.

    Every process started here has ended when this returns or raises, KeyboardInterrupt included.
    """
    board = _Board(tasks)
    count = max(1, min(os.cpu_count() or 1, _MAX_PROCESSES, board.total))
    threads = max(1, (os.cpu_count() or 1) // count)
    processes: list[_Process] = []
    events: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
    try:
        while board.unfinished:
            _hand_out(board, processes, count, threads, cache, log_folder, events)
            watcher.preparing([process.words for process in processes if process.task], len(board.results), board.total)
            with contextlib.suppress(queue.Empty):
                number, event = events.get(timeout=0.5)
                ended = processes[number].take(event)
                for result in board.settle(ended) if ended else []:
                    watcher.prepared(result)
    finally:
        for process in processes:
            process.kill()
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
        """A task whose needs are met, those that many others wait for first."""
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
                    settled += self.settle(Prepared(task, None, result.reason, result.trace))
        return settled

    def _add(self, task: Task) -> None:
        needed = needs(task)
        if needed is not None:
            self._add(needed)
        self._tasks.setdefault(identity(task), task)


class _Process:
    """One preparing process and the task it is at."""

    def __init__(
        self, number: int, threads: int, log_folder: Path, events: queue.SimpleQueue[tuple[int, dict[str, Any]]]
    ) -> None:
        self._threads = threads
        self._log: IO[bytes] = (log_folder / f"preparing-{number}.log").open("ab")
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edgeprune.matrix.stage_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
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
        request = {"task": 0, "cache": str(cache), "threads": self._threads, "work": task_to_json(task)}
        with contextlib.suppress(BrokenPipeError):  # its end is told by the listener
            assert_stdin = self._child.stdin
            if assert_stdin is not None:
                assert_stdin.write(json.dumps(request).encode() + b"\n")
                assert_stdin.flush()

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
            failed = event["failed"]
            reason = " ".join(part for part in (failed["message"], failed["hint"] and f"({failed['hint']})") if part)
            return Prepared(task, None, reason, "\n".join(part for part in (failed["detail"], failed["trace"]) if part))
        return Prepared(task, None, f"{task.title}: the preparing process ended with status {event['ended']}")

    def kill(self) -> None:
        """End the process and all it started, at once; its files are whole or not there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._log.close()

    def _listen(self, number: int, events: queue.SimpleQueue[tuple[int, dict[str, Any]]]) -> None:
        stdout = self._child.stdout
        if stdout is not None:
            for line in stdout:
                events.put((number, json.loads(line)))
        events.put((number, {"ended": self._child.wait()}))


def _hand_out(
    board: _Board,
    processes: list[_Process],
    count: int,
    threads: int,
    cache: Path,
    log_folder: Path,
    events: queue.SimpleQueue[tuple[int, dict[str, Any]]],
) -> None:
    """Give every idle process a ready task; start processes only as they are needed."""
    while True:
        idle = next((process for process in processes if process.alive and process.task is None), None)
        if idle is None and sum(process.alive for process in processes) >= count:
            return
        task = board.take_ready()
        if task is None:
            return
        if idle is None:
            idle = _Process(len(processes), threads, log_folder, events)
            processes.append(idle)
        idle.give(task, cache)
