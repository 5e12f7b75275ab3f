"""A preparing process: takes tasks as JSON lines on stdin, carries them out, tells of progress and results on stdout.

    request   {"cache":FOLDER,"threads":T,"work":{...}}
    events    {"progress":TEXT,"fraction":F} | {"done":FOLDER}
              {"failed":{"type":..,"message":..,"hint":..,"detail":..,"trace":..}}

It is a process of its own so that frameworks never share memory or time with a measurement, so that it can be ended
within a moment whatever a compiler is doing, and so that a crash in one fails one task. The end of stdin ends it at
once.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.stages import prepare
from edgeprune.matrix.tasks import task_from_json

_TELL_EVERY_SECONDS = 0.2


def main() -> None:
    """Serve requests until stdin ends."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log, not between the events
    # `sys.stdin` stays for the processes that read pictures: they close it first, and would wait for ever for its lock
    # if a thread was reading it while they were forked
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_take_requests, args=(lines, requests), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        answer = _serve(request, events)
        print(json.dumps(answer), file=events)


def _take_requests(lines: Iterable[str], requests: queue.SimpleQueue[str]) -> None:
    """Read requests in a thread of its own, so that their end is noticed in the middle of any work."""
    for line in lines:
        requests.put(line)
    os._exit(0)


def _serve(request: dict[str, Any], events: Any) -> dict[str, Any]:
    last = 0.0

    def progress(text: str, fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TELL_EVERY_SECONDS:
            last = now
            print(json.dumps({"progress": text, "fraction": fraction}), file=events)

    os.environ["OMP_NUM_THREADS"] = str(request["threads"])
    try:
        folder = prepare(Cache(Path(request["cache"])), task_from_json(request["work"]), progress)
    except EdgepruneError as error:
        told = {"type": type(error).__name__, "message": error.message, "hint": error.hint, "detail": error.detail}
        return {"failed": told | {"trace": traceback.format_exc()}}
    except Exception as error:
        told = {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}", "hint": None}
        return {"failed": told | {"detail": None, "trace": traceback.format_exc()}}
    return {"done": str(folder)}


if __name__ == "__main__":
    main()
