"""Who has a device: one owner, whoever asks at the same time; and nothing left when he is gone."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.contract.agent_of import AgentOf, hang_up
from tests.processes import command_words, left_after

OWNERS = 8


def test_a_lease_is_taken_renewed_and_dropped_by_its_owner_alone(agent: AgentOf) -> None:
    mine = {"event": "lease", "mine": True, "owner": 'anna "a" $(x)', "left_s": 60, "taken_over_from": None}
    assert agent.ask("lease", "take", 'anna "a" $(x)', "60") == mine
    assert agent.ask("lease", "take", 'anna "a" $(x)', "60") == mine
    for action in ("take", "renew", "drop"):
        refused = agent.ask("lease", action, "bert", "60")
        assert (refused["mine"], refused["owner"]) == (False, 'anna "a" $(x)')
        assert 0 < refused["left_s"] <= 60
    assert agent.ask("lease", "renew", 'anna "a" $(x)', "90")["left_s"] == 90
    assert agent.ask("lease", "drop", 'anna "a" $(x)')["mine"] is False
    assert agent.ask("lease", "take", "bert", "60")["mine"] is True


def test_of_many_who_ask_at_once_one_gets_it(agent: AgentOf) -> None:
    for _ in range(3):
        asked = [
            subprocess.Popen(agent.command("lease", "take", f"owner {n}", "60"), stdout=subprocess.PIPE)
            for n in range(OWNERS)
        ]
        answers = [json.loads(one.communicate(timeout=60)[0]) for one in asked]
        winners = [number for number, answer in enumerate(answers) if answer["mine"]]
        assert len(winners) == 1
        winner = f"owner {winners[0]}"
        assert {answer["owner"] for answer in answers} == {winner}
        assert agent.ask("lease", "drop", winner)["owner"] is None


def test_a_lease_that_ran_out_is_taken_over_with_a_word(agent: AgentOf) -> None:
    agent.ask("lease", "take", "anna", "1")
    time.sleep(1.1)
    taken = agent.ask("lease", "take", "bert", "60")
    assert (taken["mine"], taken["taken_over_from"]) == (True, "anna")
    assert agent.ask("lease", "renew", "anna", "60")["mine"] is False


@pytest.mark.parametrize("state", ["another-start 999999999 60 anna", "{boot} 2000000000 60 anna"])
def test_a_lease_of_an_earlier_start_of_the_device_is_over(agent: AgentOf, state: str) -> None:
    """Another boot id, or (where there is none to tell) more time left than was ever granted."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lease = agent.folder / "leases" / "7"
    lease.mkdir(parents=True)
    agent.folder.chmod(0o700)
    (lease / "state").write_text(state.format(boot=boot) + "\n")
    taken = agent.ask("lease", "take", "bert", "60")
    assert (taken["mine"], taken["taken_over_from"]) == (True, "anna")


def test_what_an_earlier_holder_left_running_is_ended(agent: AgentOf) -> None:
    agent.ask("lease", "take", "anna", "1")
    client = agent.start("run", "launch", "0", sys.executable, "-c", "import time; time.sleep(600)")
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    running = [one for one in agent.processes() if one.pid != client.pid]
    time.sleep(1.1)
    agent.ask("lease", "take", "bert", "60")
    client.kill()
    hang_up(client)
    assert left_after(20, running) == []
    assert not (agent.folder / "launches").exists()


def test_a_lease_that_cannot_be_written_leaves_nothing(agent: AgentOf) -> None:
    """Files that may not grow stand for a full disk; Python's children would otherwise die of it at once."""
    agent.ask("lease", "take", "anna", "60")
    done = subprocess.run(
        agent.command("lease", "renew", "anna", "60"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        restore_signals=False,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 125
    assert [entry.name for entry in (agent.folder / "leases").iterdir()] == ["1"]
    assert agent.ask("lease", "renew", "anna", "60")["mine"] is True


def test_a_lease_that_a_power_cut_emptied_is_none(agent: AgentOf) -> None:
    agent.ask("lease", "take", "anna", "60")
    (agent.folder / "leases" / "1" / "state").write_text("")
    assert agent.ask("lease", "take", "bert", "60")["mine"] is True


# --- the governor, on a folder that stands for /sys -------------------------------------------------------------------


@pytest.fixture
def governors(agent: AgentOf, tmp_path: Path) -> list[Path]:
    files = []
    for core in sorted(os.sched_getaffinity(0)):
        file = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"
        file.parent.mkdir(parents=True)
        file.write_text("schedutil\n")
        files.append(file)
    agent.environment["EDGEPRUNE_SYS"] = str(tmp_path / "sys")
    return files


def guards_of(agent: AgentOf) -> list[psutil.Process]:
    return [process for process in agent.processes() if command_words(process)[-1:] == ["guard"]]


def lasting_guard(agent: AgentOf) -> psutil.Process:
    """The one guard, once its shell's children of a moment are gone."""
    deadline = time.monotonic() + 30
    before: list[psutil.Process] = []
    while not (len(now := guards_of(agent)) == 1 and now == before):
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.3)
    return now[0]


def words(files: list[Path]) -> set[str]:
    return {file.read_text().strip() for file in files}


def test_a_governor_is_set_for_the_lease_s_time(agent: AgentOf, governors: list[Path]) -> None:
    assert agent.ask("governor", "performance") == {"event": "governor", "lease": False, "cores": []}
    assert words(governors) == {"schedutil"}
    for end in ("drop", "clean"):
        agent.ask("lease", "take", "anna", "60")
        assert agent.ask("governor", "powersave")["lease"] is True
        assert agent.ask("governor", "performance")["cores"] == sorted(os.sched_getaffinity(0))
        assert words(governors) == {"performance"}
        guards = guards_of(agent)
        assert len(guards) == 1
        agent.ask(*(["lease", "drop", "anna"] if end == "drop" else ["clean"]))
        assert words(governors) == {"schedutil"}
        assert left_after(20, guards) == []


def test_a_lease_that_is_renewed_while_it_is_read_holds(agent: AgentOf, governors: list[Path]) -> None:
    """A pipe in its place keeps the reader between listing the leases and reading the one that he found."""
    boot, uptime = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), Path("/proc/uptime").read_text()
    leases = agent.folder / "leases"
    (leases / "7").mkdir(parents=True)
    agent.folder.chmod(0o700)
    os.mkfifo(leases / "7" / "state")
    asked = subprocess.Popen(agent.command("governor", "performance"), stdout=subprocess.PIPE)
    with (leases / "7" / "state").open("w"):  # opens when the other does
        (leases / "8").mkdir()
        (leases / "8" / "state").write_text(f"{boot} {int(float(uptime.split()[0])) + 60} 60 anna\n")
        shutil.rmtree(leases / "7")
    answer = json.loads(asked.communicate(timeout=60)[0])
    assert (answer["lease"], words(governors)) == (True, {"performance"})


def test_a_governor_s_guard_keeps_off_the_worker_s_cores(agent: AgentOf, governors: list[Path]) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("one core: nothing can keep off it")
    agent.ask("lease", "take", "anna", "60")
    agent.ask("governor", "performance")
    guard = lasting_guard(agent)
    assert set(guard.cpu_affinity()) == cores
    client = agent.start("run", "launch", str(min(cores)), "cat")
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    assert set(guard.cpu_affinity()) == cores - {min(cores)}
    hang_up(client)


def test_a_governor_is_restored_when_the_laptop_stays_away(agent: AgentOf, governors: list[Path]) -> None:
    agent.ask("lease", "take", "anna", "1")
    agent.ask("governor", "performance")
    deadline = time.monotonic() + 30
    while words(governors) != {"schedutil"}:
        assert time.monotonic() < deadline
        time.sleep(0.2)


# --- leaving nothing behind -------------------------------------------------------------------------------------------


def test_clean_ends_and_removes_all_but_the_lease(agent: AgentOf) -> None:
    agent.ask("lease", "take", "anna", "60")
    (agent.folder / "pushed").mkdir()
    (agent.folder / "pushed" / "a file $(x)").write_text("x")
    client = agent.start("run", "launch", "0", sys.executable, "-c", "import time; time.sleep(600)")
    assert client.stdout is not None
    assert b"started" in client.stdout.readline()
    running = [one for one in agent.processes() if one.pid != client.pid]
    assert agent.ask("clean")["ended"] >= 3
    assert left_after(20, running) == []
    hang_up(client)
    assert [entry.name for entry in agent.folder.iterdir()] == ["leases"]
    assert agent.ask("lease", "take", "bert", "60")["mine"] is False
    agent.ask("clean", "all")
    assert not agent.folder.exists()


def test_clean_touches_no_folder_that_others_may_enter(agent: AgentOf) -> None:
    agent.folder.mkdir(mode=0o755)
    (agent.folder / "somebody's").write_text("x")
    done = subprocess.run(agent.command("clean", "all"), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "not private" in done.stderr
    assert (agent.folder / "somebody's").exists()
    agent.folder.chmod(0o700)
