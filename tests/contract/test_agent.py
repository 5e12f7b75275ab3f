"""The agent under every shell: facts, running a program, and ending it whatever happens to the link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from edgeprune.errors import RemoteError
from tests.contract.agent_of import AgentOf, events, hang_up
from tests.processes import left_after

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:] == ["child"]:
    time.sleep(600)
subprocess.Popen([sys.executable, sys.argv[0], "child"])
subprocess.Popen([sys.executable, sys.argv[0], "child"], start_new_session=True)
print('{"up": true}', flush=True)
time.sleep(600)
"""
REVERSING = "import sys; print(input()[::-1], flush=True); sys.stderr.write('last \\\\ \"words\"\\nof it'); sys.exit(7)"


def test_facts_are_one_json_line(agent: AgentOf) -> None:
    facts = agent.ask("facts")
    assert facts["machine"] == os.uname().machine
    assert facts["memory_kib"] * 1024 == psutil.virtual_memory().total
    assert facts["python"].count(".") == 2
    assert abs(facts["clock"] - time.time()) < 60
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    disk = os.statvfs(agent.folder)
    assert facts["free_kib"] * 1024 == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.2)
    assert {"sse2", "asimd", "neon"} & set(facts["features"].split())
    assert (facts["emulated"], facts["model"], facts["sdk"]) == (None, None, None)


def test_requests_answers_stderr_and_exit_pass_through(agent: AgentOf) -> None:
    client = agent.start("run", "one", "0", sys.executable, "-c", REVERSING)
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b'}1:"a"{ \\ $(x)\n')
    client.stdin.flush()
    # stdin stays open until the program has ended by itself
    lines = client.stdout.read().decode().splitlines()
    hang_up(client)
    lines.remove(')x($ \\ {"a":1}')
    said = [json.loads(line) for line in lines]
    assert said[0]["event"] == "started"
    words = 'last \\ "words"\nof it'
    assert said[-1] == {"event": "exit", "status": 7, "stopped": None, "refused": None, "stderr": words}


def test_a_program_may_be_any_words(agent: AgentOf) -> None:
    words = ["two words", "quote'\"", "$(x)`y`", "line\nend", "*", "", "\\"]
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    client = agent.start("run", "one", "-", sys.executable, "-c", program, *words)
    assert client.stdout is not None
    assert words in [json.loads(line) for line in client.stdout.read().splitlines()]
    hang_up(client)


def test_a_line_that_the_program_does_not_finish_hides_no_exit(agent: AgentOf) -> None:
    client = agent.start("run", "one", "-", "printf", "half a line")
    assert client.stdout is not None
    lines = client.stdout.read().splitlines()
    hang_up(client)
    assert b"half a line" in lines
    assert json.loads(lines[-1])["event"] == "exit"


def test_long_requests_arrive_whole(agent: AgentOf) -> None:
    channel = agent.channel([sys.executable, "-uc", "for n in range(3): print('{\"n\":%d}' % len(input()))"])
    for length in (10, 5000, 60_000):
        channel.send({"x": "y" * length})
        assert channel.receive(20) == {"n": length + len('{"x":""}')}
    channel.stop()


@contextmanager
def stubborn_worker(agent: AgentOf, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client whose program and its children ignore TERM in the middle of their work, the worst case."""
    (folder / "stubborn.py").write_text(STUBBORN)
    client = agent.start("run", "one", "0", sys.executable, str(folder / "stubborn.py"))
    assert client.stdout is not None
    while b"up" not in client.stdout.readline():
        pass
    try:
        yield client
    finally:
        hang_up(client)


def test_the_end_of_stdin_stops_everything_within_two_seconds(agent: AgentOf, tmp_path: Path) -> None:
    with stubborn_worker(agent, tmp_path) as client:
        assert client.stdin is not None
        running = agent.processes()
        assert len(running) >= 6
        client.stdin.close()
        client.wait(timeout=2.5)
        assert left_after(1.5, running) == []
        last = events(client)[-1]
        assert (last["status"], last["stopped"]) == (137, "stdin")


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_killed_client_takes_the_worker_with_it(agent: AgentOf, tmp_path: Path, whole_group: bool) -> None:
    """The laptop or the link dies with the agent's process, or with all that reads and writes for the link."""
    with stubborn_worker(agent, tmp_path) as client:
        assert client.stdin is not None
        running = agent.processes()
        if whole_group:
            os.killpg(client.pid, signal.SIGKILL)
        else:
            client.send_signal(signal.SIGKILL)
            client.stdin.close()
        client.wait()
        assert left_after(5.0, running) == []


def test_a_client_that_hangs_is_ended_with_its_link(agent: AgentOf) -> None:
    client = agent.start("run", "launch", "0", sys.executable, "-c", "import time; time.sleep(600)")
    assert client.stdin is not None
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    client.send_signal(signal.SIGSTOP)
    running = agent.processes()
    hang_up(client)
    assert left_after(10.0, running) == []


def test_stop_ends_a_stubborn_program(agent: AgentOf, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    channel = agent.channel([sys.executable, str(tmp_path / "stubborn.py")])
    assert channel.receive(10) == {"up": True}
    running = agent.processes()
    channel.stop()
    assert left_after(1.5, running) == []
    channel.stop()
    with pytest.raises(RemoteError, match="ended before"):
        channel.send({})


@pytest.mark.parametrize(
    ("cores", "mask"), [("0", "1"), ("1,2", "6"), ("31", "80000000"), ("0,127", "8" + "0" * 30 + "1")]
)
def test_masks_are_right_beyond_the_shell_s_numbers(agent: AgentOf, tmp_path: Path, cores: str, mask: str) -> None:
    (tmp_path / "taskset").write_text('#!/bin/sh\nprintf \'{"mask":"%s"}\\n\' "$1"\n')
    (tmp_path / "taskset").chmod(0o755)
    agent.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    client = agent.start("run", "one", cores, "true")
    assert {"mask": mask} in events(client)
    hang_up(client)
