"""The doctor's judgement over facts as boards and phones tell them: the figure, its limit, and what mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeprune import profiles, transport
from edgeprune.diagnosis import Finding, look_there
from edgeprune.diagnosis.device import judge, judge_look, judge_python
from edgeprune.diagnosis.reach import visit
from edgeprune.matrix.fitness import low_battery
from edgeprune.resources import devices_folder
from edgeprune.transport import Channel, Device, LocalTransport, Look

LOOK = devices_folder() / "doctor" / "look.sh"
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"], "mksh": ["mksh"]}
NOW = 1_700_000_000.0


def cores(*clocks: int, governor: str = "ondemand") -> list[dict[str, Any]]:
    return [{"core": core, "max_khz": khz, "capacity": None, "governor": governor} for core, khz in enumerate(clocks)]


PI4: dict[str, Any] = {
    "machine": "aarch64", "kernel": "Linux 6.6.31+rpt-rpi-v8", "os": "Debian GNU/Linux 12 (bookworm)",
    "processor": "aarch64", "board": "Raspberry Pi 4 Model B Rev 1.4", "emulated": None,
    "features": "fp asimd evtstrm crc32 cpuid", "memory_bytes": 3_976_000_000, "free_bytes": 21_000_000_000,
    "clock": 1_700_000_000, "boot_id": "5f0c", "python": "3.11.2", "model": None, "abi": None, "sdk": None,
    "temp_c": 48.199, "battery": None, "throttled": "0x0", "load": "0.08 0.03 0.01 1/162 913", "pinning": True,
    "cores": cores(1_500_000, 1_500_000, 1_500_000, 1_500_000, governor="performance"),
}  # fmt: skip
P20: dict[str, Any] = {
    "machine": "aarch64", "kernel": "Linux 4.9.148", "os": "Android 10", "processor": "Hisilicon Kirin970",
    "board": "", "emulated": None, "features": "half thumb asimd crc32", "memory_bytes": 3_900_000_000,
    "free_bytes": 64_000_000_000, "clock": 1_700_000_000, "boot_id": "aa11", "python": "", "model": "EML-L29",
    "abi": "arm64-v8a", "sdk": 29, "temp_c": 36.0, "battery": {"percent": 88, "charging": True, "temp_c": 31.0},
    "throttled": None, "load": "", "pinning": True,
    "cores": cores(1844000, 1844000, 1844000, 1844000, 2362000, 2362000, 2362000, 2362000, governor="schedutil"),
}  # fmt: skip
GOOD_LOOK = {"ok": "look", "user": "pi", "mode": "drwx------", "runs": True, "bits": 64, "busy": [["sshd", 6]]}


def judged(facts: dict[str, Any]) -> dict[str, Finding]:
    target = profiles.recognise(facts)
    assert target
    found = list(judge(facts, profiles.profiles()[target].device, NOW))
    assert len({one.check for one in found}) == len(found)
    return {one.check: one for one in found}


def test_a_quiet_board_is_good() -> None:
    found = judged(PI4)
    assert {one.state for one in found.values()} == {"good"}
    assert found["temperature"].figure == "48 °C"
    assert found["temperature"].limit == "65 °C before a run; it throttles from 80 °C"
    assert found["throttling"].figure == "0x0: never"
    assert found["free space"].figure == "21.0 GB"
    assert found["clock"].figure == "as here"
    assert not any(one.advice for one in found.values())


@pytest.mark.parametrize(
    ("facts", "check", "figure", "advice"),
    [
        (PI4 | {"temp_c": 71.0}, "temperature", "71 °C", "fan"),
        (PI4 | {"temp_c": None}, "temperature", "cannot be read", "drift"),
        (PI4 | {"throttled": "0x50005"}, "throttling", "0x50005: the voltage is too low, it is throttled", "supply"),
        (PI4 | {"throttled": "0x80008"}, "throttling", "0x80008: it is at its soft limit", "heat sink"),
        (PI4 | {"throttled": "0x40000"}, "throttling", "since its start: it is throttled", "sudo reboot"),
        (PI4 | {"throttled": None}, "throttling", "cannot be read", "usermod -aG video"),
        (PI4 | {"free_bytes": 120_000_000}, "free space", "0.1 GB", "edgeprune devices clean"),
        (PI4 | {"cores": cores(600, 600, 600, 600)}, "governor", "ondemand", "cpupower"),
        (PI4 | {"cores": cores(1, governor="performance")}, "cores", "1", "one core serves"),
        (PI4 | {"cores": cores(1, 1, governor="performance")}, "cores", "2", "offline"),
        (PI4 | {"pinning": False}, "pinning", "no taskset", "util-linux"),
        (PI4 | {"load": "3.10 1 1 1/1 1"}, "load", "3.10", "top"),
        (PI4 | {"clock": 1_699_999_000}, "clock", "1000 s behind this machine's", "timedatectl"),
        (PI4 | {"clock": 1_700_000_006}, "clock", "6 s ahead of this machine's", "timedatectl"),
        (PI4 | {"emulated": "qemu-user: aarch64"}, "hardware", "qemu-user: aarch64", "instructions counted"),
        (P20, "governor", "schedutil", "only root"),
        (P20 | {"battery": {"percent": 12, "charging": False, "temp_c": 30.0}}, "battery", "12 %, not", "plug it in"),
        (P20 | {"battery": {"percent": 90, "charging": None, "temp_c": 44.0}}, "battery's heat", "44 °C", "cool"),
        (P20 | {"battery": None}, "battery", "cannot be read", "screen"),
        (P20 | {"cores": cores(1844000, 1844000, 1844000, 1844000)}, "cores", "4", "power saving"),
    ],
)
def test_what_spoils_numbers_is_told_with_its_figure(
    facts: dict[str, Any], check: str, figure: str, advice: str
) -> None:
    found = judged(facts)[check]
    assert found.state == "warning"
    assert figure in found.figure
    assert advice in found.advice
    # nothing else of the board is worse for it
    others = {one.check for one in judged(facts).values() if one.state != "good"} - {check}
    assert others <= {"governor"}


def test_a_charging_phone_may_be_low() -> None:
    found = judged(P20 | {"battery": {"percent": 12, "charging": True, "temp_c": None}})
    assert found["battery"].state == "good"
    assert "battery's heat" not in found


@pytest.mark.parametrize("percent", [5, 19, 20, 25, 90])
def test_the_doctor_and_a_run_agree_on_a_low_battery(percent: int) -> None:
    facts = P20 | {"battery": {"percent": percent, "charging": False, "temp_c": None}}
    assert (judged(facts)["battery"].state == "good") == (low_battery(facts) == "")


@pytest.mark.parametrize(
    ("change", "check", "state", "words"),
    [
        ({}, "what else runs", "good", "sshd 6 %"),
        ({"busy": []}, "what else runs", "good", "nothing takes 5 %"),
        ({"busy": [["chromium", 93], ["sshd", 6]]}, "what else runs", "warning", "chromium 93 %, sshd 6 %"),
        ({"mode": "drwxr-xr-x"}, "private folder", "warning", "drwxr-xr-x"),
        ({"mode": "drwxrws--x+"}, "private folder", "warning", "drwxrws--x+"),
        ({"runs": False}, "programs", "blocked", "may not be started"),
    ],
)
def test_the_folder_and_what_else_runs(change: dict[str, Any], check: str, state: str, words: str) -> None:
    (found,) = [one for one in judge_look(Look.model_validate(GOOD_LOOK | change)) if one.check == check]
    assert (found.state, words in found.figure) == (state, True)
    assert bool(found.advice) == (state != "good")


def test_a_32_bit_system_on_a_64_bit_kernel_is_told() -> None:
    reasons = {"onnxruntime": "", "torch": "torch runs on this machine alone"}
    found = {one.check: one for one in judge_python(PI4, 32, reasons)}
    assert found["system"].state == "warning"
    assert "64-bit system" in found["system"].advice
    assert found["runtime torch"].figure == "skipped"
    assert found["runtime onnxruntime"].state == "good"
    assert "system" not in {one.check for one in judge_python(PI4, 64, reasons)}
    assert "system" not in {one.check for one in judge_python(PI4 | {"machine": "armv7l"}, 32, reasons)}


class Confused(LocalTransport):
    """This machine, whose look says something else."""

    says = ""

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel:
        return super().run(["echo", self.says], cores)


@pytest.mark.parametrize("change", [{"busy": [["sshd", "much"]]}, {"mode": None}, {"runs": "yes"}, {"bits": 31}])
def test_a_look_that_is_none_is_told(change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    way = Confused()
    for says, state in ((GOOD_LOOK, "good"), (GOOD_LOOK | change, "blocked")):
        way.says = json.dumps(says)
        found = {one.check: one for one in visit(Device(name="local"), way)}
        assert found["programs"].state == state
    assert "not an answer" in found["programs"].figure
    way.close()


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{words[0]} is not installed, and CI must have it")
        pytest.skip(f"{words[0]} is not installed: apt-get install {words[0]}")
    return words


def test_the_look_sees_a_busy_process_under_every_shell(shell: list[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        done = subprocess.run([*shell, str(LOOK)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    finally:
        busy.kill()
        busy.wait()
    looked = json.loads(done.stdout)
    assert looked["mode"] == "drwxr-x---"
    assert looked["runs"] is True
    assert looked["bits"] == 64
    assert looked["busy"][0][1] >= looked["busy"][-1][1] >= 5
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_nothing_may_run_is_seen(tmp_path: Path) -> None:
    """A file system without room is as good as one without leave: the copy cannot be started."""
    limited = f"ulimit -f 0; exec sh {LOOK}"
    done = subprocess.run(["sh", "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["runs"] is False


def test_this_machine_is_visited_like_any_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    found = {one.check: one for one in look_there(transport.find("local"))}
    assert found["in use"].state == "good"
    assert found["private folder"].figure.startswith("drwx------")
    assert found["programs"].state == "good"


class Board(LocalTransport):
    """This machine, which says that it is another one."""

    name = "board"
    is_this_machine = False

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self._told = told

    def facts(self) -> dict[str, Any]:
        return self._told


@pytest.mark.parametrize(
    ("target", "change", "state", "words"),
    [
        ("rpi4", {}, "good", ""),
        ("rpi5", {}, "blocked", "no dotprod, fullfp16"),
        ("rpi5", {"features": "fp asimd asimddp asimdhp"}, "good", ""),
        ("rpi5", {"features": None}, "good", ""),  # it does not say
        ("linux-x86-64", {}, "blocked", "its processor is aarch64, and the code is for x86_64"),
        ("rpi4", {"machine": "armv7l", "features": "neon vfpv4"}, "blocked", "is armv7l, and the code is for aarch64"),
        ("rpi2", {"machine": "armv7l", "features": "half thumb vfpv3"}, "blocked", "no neon, vfp4"),
        ("rpi2", {}, "warning", "its processor is aarch64, and the code is for armv7l"),
        ("own.yaml", {}, "blocked", "no sve"),
    ],
)
def test_a_target_that_the_user_names_must_fit_the_processor(
    target: str, change: dict[str, Any], state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    own = "{triple: aarch64-linux-gnu, features: [neon, sve], vector_bits: 128, vector_registers: 32}"
    (tmp_path / "own.yaml").write_text(own)
    way = Board(PI4 | change)
    found = next(one for one in visit(Device(name="board", target=target), way) if one.check == "target")
    assert found.state == state
    assert words in found.advice
    assert bool(found.advice) == bool(words)


def test_a_device_that_a_run_has_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    run = transport.connect("local")
    assert run.acquire()
    try:
        found = {one.check: one for one in look_there(transport.find("local"))}
    finally:
        run.close()
    assert found["in use"].state == "warning"
    assert "private folder" not in found
