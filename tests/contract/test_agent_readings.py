"""What the agent reads of boards and phones that are not here: folders stand for their /sys and /proc."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract.agent_of import AgentOf, events, hang_up

ARM_CPUINFO = "processor\t: 0\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
X86_CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: {}\nflags\t\t: fpu sse2\n"
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 87
  temperature: 305
"""


@pytest.fixture
def agent(agent: AgentOf, tmp_path: Path) -> AgentOf:
    agent.environment |= {
        "EDGEPRUNE_SYS": str(tmp_path / "sys"),
        "EDGEPRUNE_PROC": str(tmp_path / "proc"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    return agent


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of the device; those below bin/ are programs."""

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}" if name.startswith("bin/") else text)
        path.chmod(0o755)
        return path

    return written


def read_until(agent: AgentOf, holds: Callable[[dict[str, Any]], bool], then: Callable[[], object]) -> dict[str, Any]:
    """Run a program; once a reading came, do `then`; the first reading after that for which `holds`."""
    client = agent.start("run", "launch", "0", sys.executable, "-c", "import time; time.sleep(600)")
    assert client.stdout is not None
    done = False
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            reading = json.loads(client.stdout.readline())
            if reading["event"] != "reading":
                continue
            if done and holds(reading):
                return dict(reading)
            if not done:
                then()
                done = True
        raise AssertionError("no such reading")
    finally:
        hang_up(client)


# --- a Raspberry Pi ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pi(write: Callable[[str, str], Path]) -> Path:
    """Its throttle word; under-voltage and a capped clock some time since its start."""
    write("proc/cpuinfo", ARM_CPUINFO)
    write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write("proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    write("bin/uname", "case $1 in -m) echo aarch64 ;; *) echo Linux 6.6.20 ;; esac\n")
    for number, (kind, heat) in enumerate([("cpu-thermal", 47_712), ("rp1_adc", 51_003), ("battery", 99_000)]):
        write(f"sys/class/thermal/thermal_zone{number}/type", f"{kind}\n")
        write(f"sys/class/thermal/thermal_zone{number}/temp", f"{heat}\n")
    for core in os.sched_getaffinity(0):
        write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", "1800000\n")
        write(f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", "1800000\n")
        write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "ondemand\n")
    return write("sys/devices/platform/soc/soc:firmware/get_throttled", "30000\n")


def test_readings_come_once_a_second(agent: AgentOf, pi: Path) -> None:
    """By the device's own clock; a machine that is busy may delay some."""
    client = agent.start("run", "launch", "-", "sleep", "6")
    times = [event["uptime_s"] for event in events(client) if event["event"] == "reading"][:-1]  # the last is the end's
    hang_up(client)
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert min(steps) >= 0.8
    assert statistics.median(steps) <= 3.0


def test_readings_are_taken_on_other_cores_than_the_worker_s(agent: AgentOf, pi: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("one core: nothing can keep off it")
    client = agent.start("run", "launch", str(max(cores)), "sleep", "600")
    assert client.stdout is not None
    while b"reading" not in client.stdout.readline():
        pass
    worker = ("sleep", "600")
    while worker not in (placed := places(agent)):  # the shell that becomes it may still be there
        time.sleep(0.05)
    assert placed[worker] == [{max(cores)}]
    kept = [place for words, found in placed.items() if "keep" in words for place in found]
    assert len(kept) >= 3  # the clerk, the pulse and what waits for the worker
    assert all(place == cores - {max(cores)} for place in kept)
    hang_up(client)


def places(agent: AgentOf) -> dict[tuple[str, ...], list[set[int]]]:
    """The cores of whatever runs there, by its words; a shell's children of a moment may be among it."""
    found: dict[tuple[str, ...], list[set[int]]] = {}
    for process in agent.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.setdefault(tuple(process.cmdline()), []).append(set(process.cpu_affinity()))
    return found


def test_the_facts_of_a_pi(agent: AgentOf, pi: Path) -> None:
    facts = agent.ask("facts")
    assert (facts["machine"], facts["board"]) == ("aarch64", "Raspberry Pi 4 Model B Rev 1.4")
    assert (facts["temp_c"], facts["throttled"], facts["emulated"]) == (51.003, "0x30000", None)
    assert facts["features"] == "fp asimd crc32"
    assert {(core["max_khz"], core["governor"]) for core in facts["cores"]} == {(1_800_000, "ondemand")}


@pytest.mark.parametrize(("word", "throttled"), [("30000", False), ("30004", True), ("50005", True), ("70000", True)])
def test_a_throttled_pi_is_told_as_such(agent: AgentOf, pi: Path, word: str, throttled: bool) -> None:
    """By the bits of now, or by one of "since its start" that was not set before."""
    reading = read_until(agent, lambda one: one["throttle_word"] == f"0x{word}", lambda: pi.write_text(f"{word}\n"))
    assert reading["throttled"] is throttled
    assert (reading["temp_c"], set(reading["clock_hz"])) == (51.003, {1_800_000_000})
    assert reading["battery"] is None


def test_the_throttle_word_comes_from_vcgencmd_where_the_kernel_does_not_tell(
    agent: AgentOf, pi: Path, write: Callable[[str, str], Path]
) -> None:
    pi.unlink()
    write("bin/vcgencmd", "echo throttled=0x50005\n")
    assert agent.ask("facts")["throttled"] == "0x50005"
    write("bin/vcgencmd", "echo VCHI initialization failed\nexit 255\n")
    assert agent.ask("facts")["throttled"] is None


# --- a phone ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def phone(write: Callable[[str, str], Path]) -> Path:
    """What its services say, in a file; the kernel's files of the battery are shut."""
    write("proc/cpuinfo", ARM_CPUINFO)
    write("bin/uname", "echo aarch64\n")
    write("bin/getprop", "case $1 in ro.product.model) echo EML-L29 ;; ro.product.cpu.abi) echo arm64-v8a ;;\n"
          "ro.build.version.sdk) echo 29 ;; ro.build.version.release) echo 10 ;; esac\n")  # fmt: skip
    heat = write("heat", "Thermal Status: 0\n")
    write("bin/dumpsys", f"case $1 in battery) cat <<'END'\n{BATTERY}END\n;; thermalservice) cat '{heat}' ;; esac\n")
    return heat


def test_the_facts_of_a_phone(agent: AgentOf, phone: Path) -> None:
    facts = agent.ask("facts")
    assert (facts["model"], facts["abi"], facts["sdk"], facts["os"]) == ("EML-L29", "arm64-v8a", 29, "Android 10")
    assert facts["battery"] == {"percent": 87, "charging": True, "temp_c": 30.5}
    assert facts["emulated"] is None


def test_a_phone_that_throttles_is_told_as_such(agent: AgentOf, phone: Path) -> None:
    reading = read_until(agent, lambda one: one["throttled"] is True, lambda: phone.write_text("Thermal Status: 3\n"))
    assert reading["battery"] == {"percent": 87, "charging": True, "temp_c": 30.5}


def test_the_battery_is_read_from_the_kernel_where_it_tells(
    agent: AgentOf, phone: Path, write: Callable[[str, str], Path]
) -> None:
    for name, text in {"type": "Battery", "capacity": "15", "temp": "298", "status": "Discharging"}.items():
        write(f"sys/class/power_supply/battery/{name}", f"{text}\n")
    write("sys/class/power_supply/usb/type", "USB\n")
    assert agent.ask("facts")["battery"] == {"percent": 15, "charging": False, "temp_c": 29.8}


# --- what is no device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "product", "board", "emulated"),
    [
        ("aarch64", X86_CPUINFO.format("Xeon"), "", "", "qemu-user: aarch64 on an x86-64 kernel"),
        ("armv7l", X86_CPUINFO.format("Xeon"), "", "", "qemu-user: armv7l on an x86-64 kernel"),
        ("x86_64", ARM_CPUINFO, "", "", "qemu-user: x86_64 on an arm kernel"),
        ("aarch64", ARM_CPUINFO, "", "linux,dummy-virt\0", "a machine that QEMU emulates"),
        ("aarch64", ARM_CPUINFO, "QEMU Virtual Machine\n", "", "a machine that QEMU emulates"),
        ("x86_64", X86_CPUINFO.format("QEMU TCG CPU version 2.5+"), "", "", "a machine that QEMU emulates"),
        ("aarch64", ARM_CPUINFO, "KVM Virtual Machine\n", "linux,dummy-virt\0", None),
        ("x86_64", X86_CPUINFO.format("QEMU Virtual CPU version 2.5+"), "Standard PC (Q35 + ICH9, 2009)\n", "", None),
        ("x86_64", X86_CPUINFO.format("Xeon"), "PowerEdge R740\n", "", None),
        ("armv7l", ARM_CPUINFO, "", "raspberrypi,2-model-b\0", None),
    ],
)
def test_only_what_is_emulated_is_told_to_be(
    agent: AgentOf, write: Callable[[str, str], Path],
    machine: str, cpuinfo: str, product: str, board: str, emulated: str | None,
) -> None:  # fmt: skip
    write("bin/uname", f"echo {machine}\n")
    write("proc/cpuinfo", cpuinfo)
    write("sys/class/dmi/id/product_name", product)
    if board:
        write("proc/device-tree/compatible", board)
    assert agent.ask("facts")["emulated"] == emulated
