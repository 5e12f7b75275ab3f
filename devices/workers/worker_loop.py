"""The loop every worker runs on a device: one model, requests as JSON lines on stdin, answers as JSON lines on stdout.

A worker holds a runtime and nothing else; it takes times and judges nothing: warm-up, samples and statistics are
decided on the laptop. A worker file `<runtime>_worker.py` supplies `load` and calls `main(load)`. Start with
`_Session.answer`.

    request                                             answer
    {"op":"load","model":PATH,"threads":N}              {"ok":"load","versions":{...}}
    {"op":"bind","inputs":[{"path":P,"shape":[...],"dtype":"float32"}]}
                                                        {"ok":"bind"}
    {"op":"check","outputs":[PATH, ...]}                {"ok":"check","outputs":[{"path":P,"shape":...,"dtype":...}]}
    {"op":"time","group":G,"samples":N,"seconds":S,"lead":L}
                                                        {"samples_ns":[...]} as often as needed, then {"ok":"time"}
    {"op":"memory","calls":N}                           {"ok":"memory","peak_rss_bytes":B}
    {"op":"quit"}                                       {"ok":"quit"} and exit status 0

`time` makes L calls that are not timed, then times groups of G calls until N groups and S seconds are both reached; the
clock is monotonic, garbage collection is off, and nothing is written until the last sample is taken. Tensors are files
of raw little-endian numbers in C order. Whatever goes wrong is one line {"error":KIND,"message":TEXT} and exit status
1. A line is shorter than 4,096 bytes, so that a pipe takes it whole and the agent may write into the same pipe.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
LINE_BYTES = 4096
_SAMPLES_A_LINE = 150


class Runtime(Protocol):
    """A model held by a runtime, ready to be called."""

    def bind(self, inputs: list[Array]) -> None:
        """Set the tensors that every later call reads."""

    def call(self) -> None:
        """Run one inference on the bound inputs and wait for its end."""

    def outputs(self) -> list[Array]:
        """The outputs of the last call."""

    def versions(self) -> dict[str, str]:
        """The runtime's name and version."""


Load = Callable[[str, int], Runtime]


def main(load: Load) -> int:
    """Answer requests until `quit`, an error, or the end of stdin; returns the exit status."""
    session = _Session(load)
    for line in sys.stdin.buffer:
        try:
            going = session.answer(json.loads(line.decode("utf-8", "surrogateescape")))
        except BaseException as error:
            trace = traceback.format_exc()
            sys.stderr.write(trace)
            _send({"error": type(error).__name__, "message": str(error)[: LINE_BYTES // 8]})
            return 1
        if not going:
            return 0
    return 0


class _Session:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._runtime: Runtime | None = None

    def answer(self, request: dict[str, Any]) -> bool:
        """Carry out one request and answer it; False after `quit`."""
        operation = request["op"]
        if operation == "load":
            self._runtime = self._load(request["model"], request["threads"])
            _send({"ok": "load", "versions": self._runtime.versions()})
        elif operation == "bind":
            self._model().bind([_read_tensor(entry) for entry in request["inputs"]])
            _send({"ok": "bind"})
        elif operation == "check":
            _send({"ok": "check", "outputs": _check(self._model(), request["outputs"])})
        elif operation == "time":
            samples = _time(
                self._model(), request["group"], request["samples"], request["seconds"], request.get("lead", 0)
            )
            for start in range(0, len(samples), _SAMPLES_A_LINE):
                _send({"samples_ns": samples[start : start + _SAMPLES_A_LINE]})
            _send({"ok": "time"})
        elif operation == "memory":
            runtime = self._model()
            for _ in range(request["calls"]):
                runtime.call()
            _send({"ok": "memory", "peak_rss_bytes": peak_rss_bytes()})
        elif operation == "quit":
            _send({"ok": "quit"})
            return False
        else:
            raise ValueError(f"unknown request {operation!r}")
        return True

    def _model(self) -> Runtime:
        if self._runtime is None:
            raise ValueError("no model is loaded")
        return self._runtime


def _time(runtime: Runtime, group: int, samples: int, seconds: float, lead: int) -> list[int]:
    call, clock = runtime.call, time.perf_counter_ns
    taken: list[int] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(lead):
            call()
        end = clock() + int(seconds * 1e9)
        while True:
            before = clock()
            for _ in range(group):
                call()
            after = clock()
            taken.append(after - before)
            if len(taken) >= samples and after >= end:
                return taken
    finally:
        gc.enable()


def peak_rss_bytes() -> int:
    """The largest resident memory this process has had.

    VmHWM, since getrusage's maximum survives exec, so that it can be that of the program that started this one; or what
    is resident now, page by page, where that is more: before Linux 6.2 the counter behind VmHWM lags by up to 4 MB a
    thread (SPLIT_RSS_COUNTING of mm/memory.c).
    """
    peak, now = _sum_of("/proc/self/status", "VmHWM:"), _sum_of("/proc/self/smaps_rollup", "Rss:")
    return max(peak, now) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _sum_of(path: str, key: str) -> int:
    """The sum of a file's lines `key N kB`, in bytes; 0 where there are none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return 1024 * sum(int(line.split()[1]) for line in file if line.startswith(key))
    except OSError:
        return 0


def _check(runtime: Runtime, paths: list[str]) -> list[dict[str, Any]]:
    runtime.call()
    described = []
    for array, path in zip(runtime.outputs(), paths, strict=True):
        np.ascontiguousarray(array).tofile(path)
        described.append({"path": path, "shape": list(array.shape), "dtype": str(array.dtype)})
    return described


def _read_tensor(entry: dict[str, Any]) -> Array:
    flat: Array = np.fromfile(entry["path"], dtype=entry["dtype"])
    return flat.reshape(entry["shape"])


def _send(answer: dict[str, Any]) -> None:
    line = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    os.write(sys.stdout.fileno(), line)
