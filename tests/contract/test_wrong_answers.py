"""Well-formed lines that say something else than they should, and what is left of a launch whose link is lost.

The program on the device is a shell script that says them: nothing tells its lines from those of the agent.
"""

from __future__ import annotations

import errno
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeprune.errors import EdgepruneError, GarbledAnswerError, StorageError, TransportError
from edgeprune.transport import Channel, LocalTransport, Worker
from edgeprune.transport.contract import parse_facts
from tests.processes import soon

PATIENCE = 20.0


@pytest.fixture
def transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTransport]:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    device = LocalTransport()
    assert device.acquire()
    yield device
    device.close()


def worker(transport: LocalTransport, *answers: object) -> Worker:
    """A worker that answers its first request with these, one after the other."""
    said = " ".join(shlex.quote(one if isinstance(one, str) else json.dumps(one)) for one in answers)
    return Worker.start(transport, "native", None, ["sh", "-c", f"read -r line; printf '%s\\n' {said}; read -r line"])


def load(worker: Worker) -> None:
    worker.load("model", 1)


def check(worker: Worker) -> None:
    worker.check(1)


def take(worker: Worker) -> None:
    worker.time(group=1, samples=2, seconds=0.0)


def memory(worker: Worker) -> None:
    worker.peak_rss_bytes(1)


OUTPUT = {"path": "/dev/null", "shape": [1], "dtype": "float32"}


@pytest.mark.parametrize(
    ("ask", "answers"),
    [
        (load, [{"ok": "load"}]),
        (load, [{"ok": "load", "versions": [1, 2]}]),
        (load, ["[" * 100_000]),
        (check, [{"ok": "check"}]),
        (check, [{"ok": "check", "outputs": 5}]),
        (check, [{"ok": "check", "outputs": []}]),
        (check, [{"ok": "check", "outputs": [OUTPUT | {"dtype": "gloat32"}]}]),
        (check, [{"ok": "check", "outputs": [OUTPUT | {"shape": "all"}]}]),
        (check, [{"ok": "check", "outputs": [OUTPUT]}]),  # it is empty
        (take, [{"samples_ns": 5}]),
        (take, [{"samples_ns": ["5", None]}]),
        (take, [{"samples_ns": [5, -5]}, {"ok": "time"}]),
        (take, [{"samples_ns": [5]}, {"ok": "time"}]),
        (memory, [{"ok": "memory"}]),
        (memory, [{"ok": "memory", "peak_rss_bytes": "much"}]),
        (load, [{"event": "started", "cores": 5}]),
        (load, [{"event": "started"}]),
        (load, [{"event": "reading", "uptime_s": None}]),
        (load, ['{"event":"reading","uptime_s":NaN,"temp_c":null,"clock_hz":null,"throttled":null}']),
        (load, [{"event": "exit", "status": "1?"}]),
    ],
)
def test_what_is_no_answer_to_the_request_is_a_garbled_one(
    transport: LocalTransport, ask: Callable[[Worker], None], answers: list[object]
) -> None:
    with worker(transport, *answers) as asked, pytest.raises(GarbledAnswerError, match="local: "):
        ask(asked)


def test_an_output_is_read_as_it_is_described(transport: LocalTransport, tmp_path: Path) -> None:
    np.arange(6, dtype="float32").tofile(tmp_path / "numbers")
    described = {"path": str(tmp_path / "numbers"), "shape": [2, 3], "dtype": "float32"}
    with worker(transport, {"ok": "check", "outputs": [described]}) as asked:
        (numbers,) = asked.check(1)
    np.testing.assert_array_equal(numbers, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"cores": 5},
        {"cores": [{"core": "all"}]},
        {"temp_c": "warm"},
        {"memory_kib": "lots"},
        {"event": "reading"},
        {"battery": {"percent": None, "charging": None, "temp_c": None}},
        {"throttled": "hot"},
        {"load": "much of it"},
        {"clock": "noon"},
    ],
)
def test_facts_that_are_none_are_told(transport: LocalTransport, change: dict[str, Any]) -> None:
    facts = transport.facts()
    kib = {f"{what}_kib": facts.pop(f"{what}_bytes") // 1024 for what in ("memory", "free")}
    told = {"event": "facts", **facts, **kib}
    assert parse_facts(json.dumps(told).encode(), "board")["cores"] == facts["cores"]
    with pytest.raises(TransportError, match="board: the agent says no facts") as caught:
        parse_facts(json.dumps(told | change).encode(), "board")
    assert "edgeprune devices clean board" in str(caught.value.hint)


# --- a launch whose link was lost -------------------------------------------------------------------------------------

GREETING = ["sh", "-c", "echo '{\"n\":1}'"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), TransportError),
        (StorageError("/tmp: no space left"), StorageError),
        (KeyError("socket"), TransportError),
    ],
)
def test_whoever_waits_hears_that_a_launch_cannot_be_taken_over(fault: Exception, kind: type[EdgepruneError]) -> None:
    def attach(lines: int, requests: int) -> list[str]:
        raise fault

    heard: list[BaseException] = []

    def listen() -> None:
        try:
            channel.receive(PATIENCE)
        except EdgepruneError as error:
            heard.append(error)

    channel = Channel(GREETING, "board", attach=attach)
    assert channel.receive(PATIENCE) == {"n": 1}
    waiting = threading.Thread(target=listen, daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
    assert [type(error) for error in heard] == [kind]
    channel.stop()


def clients() -> list[psutil.Process]:
    """Programs that this process has started and not waited for, those that have ended among them."""
    return psutil.Process().children()


@pytest.mark.parametrize("end", [Channel.stop, Channel.abort])
def test_a_client_that_is_just_taking_over_is_ended_with_the_rest(
    end: Callable[[Channel], None], tmp_path: Path
) -> None:
    before, up = set(clients()), tmp_path / "up"
    silent = ["sh", "-c", 'echo up >"$1"; exec sleep 600', "sh", str(up)]
    channel = Channel(GREETING, "board", attach=lambda lines, requests: silent)
    assert soon(up.exists)
    end(channel)
    channel.stop()
    assert soon(lambda: set(clients()) <= before)


def test_a_client_that_takes_over_after_the_end_is_ended(tmp_path: Path) -> None:
    before, asked, ended = set(clients()), threading.Event(), threading.Event()

    def attach(lines: int, requests: int) -> list[str]:
        asked.set()
        ended.wait(PATIENCE)
        return ["sh", "-c", 'echo "{\\"event\\":\\"attached\\",\\"requests\\":0}"; exec sleep 600']

    channel = Channel(GREETING, "board", attach=attach)
    assert asked.wait(PATIENCE)
    channel.stop()
    ended.set()
    assert soon(lambda: not channel._reader.is_alive())
    assert soon(lambda: set(clients()) <= before)
