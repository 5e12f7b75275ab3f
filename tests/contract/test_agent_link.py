"""A launch and its link: cut at any moment, half open, silent; nothing is lost, nothing is carried out twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import LinkLostError, RemoteError
from edgeprune.transport.channel import Channel
from tests.contract.agent_of import AgentOf, events, hang_up
from tests.contract.cut_link import CutLink
from tests.processes import command_words, kill_all, left_after

# answers each request with its number and how many it had before, at no regular pace
COUNTING = """
import json, random, sys, time
for had, line in enumerate(sys.stdin):
    time.sleep(random.random() / 200)
    sys.stdout.write(json.dumps({"n": json.loads(line)["n"], "had": had, "pad": "x" * random.randrange(3000)}) + "\\n")
    sys.stdout.flush()
"""
ENDING = "print('{\"up\":true}', flush=True); input(); print('[]'); raise SystemExit(9)"
KILLS = {"dash": 12, "bash": 4, "busybox": 4, "mksh": 4}


@pytest.fixture
def link(agent: AgentOf, tmp_path: Path) -> Iterator[CutLink]:
    one = CutLink(agent, tmp_path)
    yield one
    one.hang_up()


def counting_channel(link: CutLink, patience: float = 60.0) -> Channel:
    return Channel(
        link.client("run", "launch", "0", sys.executable, "-c", COUNTING),
        "device",
        attach=lambda lines, requests: link.client("attach", "launch", str(lines), str(requests)),
        patience=patience,
    )


def test_every_request_is_answered_once_whenever_the_link_is_cut(agent: AgentOf, link: CutLink) -> None:
    kills, seed = KILLS[agent.shell[0]], random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    channel = counting_channel(link)
    sent = answered = 0
    while len(link.served) <= kills:
        number = len(link.served)
        until = time.monotonic() + chance.uniform(0.0, 0.3)
        while time.monotonic() < until:
            while sent < answered + 4:  # several are always under way
                channel.send({"n": sent})
                sent += 1
            answer = channel.receive(30)
            assert (answer["n"], answer["had"]) == (answered, answered)
            answered += 1
        link.cut()
        while len(link.served) == number:
            time.sleep(0.01)
    while answered < sent:
        answer = channel.receive(30)
        assert (answer["n"], answer["had"]) == (answered, answered)
        answered += 1
    assert answered > kills
    assert gone_but_last(link)
    link.release()
    channel.stop()


def gone_but_last(link: CutLink) -> bool:
    """Whether the agents of all cut links have noticed that another has taken over."""
    try:
        for served in link.served[:-1]:
            served.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return link.served[-1].poll() is None


def test_a_client_that_was_stopped_and_goes_on_does_no_harm(agent: AgentOf) -> None:
    first = agent.start("run", "launch", "0", sys.executable, "-c", COUNTING)
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(b'{"n":0}\n')
    first.stdin.flush()
    lines = 1
    while b'"n"' not in first.stdout.readline():
        lines += 1
    os.killpg(first.pid, signal.SIGSTOP)
    first.stdin.write(b'{"n":1}\n')  # lies in the first link
    first.stdin.flush()
    second = agent.start("attach", "launch", str(lines), "2")
    assert second.stdin is not None
    assert second.stdout is not None
    assert json.loads(second.stdout.readline()) == {"event": "attached", "requests": 1}
    second.stdin.write(b'{"n":1}\n')
    second.stdin.flush()
    os.killpg(first.pid, signal.SIGCONT)
    first.stdin.close()
    first.wait(timeout=10)  # it sees that another has taken over
    first.stdout.close()
    second.stdin.write(b'{"n":2}\n')
    second.stdin.flush()
    answers: list[tuple[int, int]] = []
    while len(answers) < 2:
        said = json.loads(second.stdout.readline())
        if "n" in said:
            answers.append((said["n"], said["had"]))
    assert answers == [(1, 1), (2, 2)]
    second.stdin.close()
    assert events(second)[-1]["stopped"] == "stdin"
    hang_up(second)


def test_an_ended_launch_tells_the_rest_and_an_unknown_one_nothing(agent: AgentOf) -> None:
    first = agent.start("run", "launch", "-", sys.executable, "-c", "print('[1]\\n[2]\\n[3]'); raise SystemExit(5)")
    whole = events(first)
    hang_up(first)
    again = agent.start("attach", "launch", "2", "0")
    assert events(again) == [{"event": "attached", "requests": 0}, *whole[2:]]
    hang_up(again)
    assert agent.ask("attach", "another", "0", "0") == {"event": "gone"}


def test_a_launch_whose_keeper_was_killed_is_gone(agent: AgentOf) -> None:
    """As after a restart of the device: the spool is there, and nobody writes to it."""
    first = agent.start("run", "launch", "0", sys.executable, "-c", COUNTING)
    assert first.stdout is not None
    assert b"started" in first.stdout.readline()
    kill_all(agent.processes())
    hang_up(first)
    assert agent.ask("attach", "launch", "0", "0") == {"event": "gone"}


def test_silence_ends_the_program_and_a_sign_of_life_does_not(agent: AgentOf) -> None:
    agent.environment["EDGEPRUNE_SILENCE_S"] = "2"
    client = agent.start("run", "launch", "0", sys.executable, "-c", COUNTING)
    assert client.stdin is not None
    assert client.stdout is not None
    for _ in range(8):
        client.stdin.write(b'{"op":"alive"}\n')
        client.stdin.flush()
        time.sleep(0.5)
    assert client.poll() is None
    said = events(client)  # from here on silence
    assert sum(event == {"event": "alive"} for event in said) == 8
    assert said[-1]["stopped"] == "silence"
    hang_up(client)


def test_a_link_that_stays_away_ends_in_an_error(agent: AgentOf) -> None:
    channel = Channel(
        agent.command("run", "launch", "-", sys.executable, "-c", COUNTING),
        "device",
        attach=lambda lines, requests: ["sh", "-c", "echo no route to device >&2; exit 255"],
        patience=3.0,
    )
    channel.send({"n": 0})
    assert channel.receive(10)["n"] == 0
    os.killpg(channel._client.pid, signal.SIGKILL)
    with pytest.raises(LinkLostError, match="not back within 3 s") as caught:
        channel.receive(1.0)  # seconds without a link do not count
    assert caught.value.detail == "no route to device"
    channel.stop()


def test_a_device_that_was_restarted_ends_in_an_error(agent: AgentOf, link: CutLink) -> None:
    channel = counting_channel(link)
    channel.send({"n": 0})
    assert channel.receive(10)["n"] == 0
    agent.ask("clean", "all")
    link.cut()
    with pytest.raises(LinkLostError, match="no longer knows the launch"):
        channel.receive(30)
    channel.stop()


def test_a_program_that_ends_while_the_link_is_away_is_told_as_such(agent: AgentOf, link: CutLink) -> None:
    channel = Channel(
        link.client("run", "launch", "-", sys.executable, "-c", ENDING),
        "device",
        attach=lambda lines, requests: link.client("attach", "launch", str(lines), str(requests)),
    )
    assert channel.receive(10) == {"up": True}
    channel.send({})
    link.cut()
    with pytest.raises(RemoteError, match=r"not an answer: '\[\]'"):
        channel.receive(30)
    with pytest.raises(RemoteError, match="status 9"):
        channel.receive(30)
    channel.stop()


@pytest.mark.parametrize("found", [True, False], ids=["after", "before"])
def test_a_launch_whose_keeper_was_killed_ends_with_its_link(agent: AgentOf, tmp_path: Path, found: bool) -> None:
    """After or before the link has found its keeper: it looks again every 0.02 s."""
    if not found:
        slow = tmp_path / "bin" / "sleep"
        slow.parent.mkdir()
        slow.write_text(f'#!/bin/sh\n[ "$1" != 0.02 ] || set -- 3\nexec {shutil.which("sleep")} "$1"\n')
        slow.chmod(0o755)
        agent.environment["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
    client = agent.start("run", "launch", "0", sys.executable, "-c", COUNTING)
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    kill_all(process for process in agent.processes() if "keep" in command_words(process))
    hang_up(client)
    assert left_after(10.0, agent.processes()) == []


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "hung up"])
def test_a_launch_whose_folder_was_removed_ends(agent: AgentOf, killed: bool) -> None:
    """As by the next holder of the lease, who did not see a process that had just been started."""
    client = agent.start("run", "launch", "0", sys.executable, "-c", COUNTING)
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    shutil.rmtree(agent.folder / "launches")
    if killed:
        os.killpg(client.pid, signal.SIGKILL)
    hang_up(client)
    assert left_after(10.0, agent.processes()) == []
