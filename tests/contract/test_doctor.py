"""The doctor visits an emulated board and phone, well and unwell, free and taken, and devices that are away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.diagnosis import Finding, look_there
from edgeprune.diagnosis.reach import visit
from edgeprune.standins.android_state import AndroidState
from edgeprune.standins.board import TEMPERATURE, THROTTLED
from edgeprune.standins.phone import STATE_FOLDER
from edgeprune.standins.pi import SYS_FOLDER
from edgeprune.transport import Device, RemoteTransport
from edgeprune.transport.ssh import SshLink
from tests.standins import Plugged, Reached


def visited(device: Device, way: RemoteTransport) -> dict[str, Finding]:
    found = list(visit(device, way))
    assert len({one.check for one in found}) == len(found)
    return {one.check: one for one in found}


def way_to(pi: Reached) -> RemoteTransport:
    keys = (Path(pi.identity), Path(pi.known_hosts))
    return RemoteTransport(SshLink("board", pi.host, pi.user, pi.port, *keys, ("-F", "none")))


@pytest.fixture
def board(virtual_pi: Reached) -> Iterator[RemoteTransport]:
    with contextlib.closing(way_to(virtual_pi)) as way:
        yield way


def test_a_board_that_is_well_and_one_that_is_hot_and_throttled(board: RemoteTransport, virtual_pi: Reached) -> None:
    device = Device(name="board")
    well = visited(device, board)
    assert "aarch64" in well["found"].figure
    assert well["target"].figure == "linux-arm64 (recognised)"
    assert "qemu-user" in well["hardware"].figure
    assert (well["temperature"].state, well["temperature"].figure) == ("good", "45 °C")
    assert (well["throttling"].state, well["throttling"].figure) == ("good", "0x0: never")
    assert well["private folder"].figure == "drwx------, user pi"
    assert well["programs"].state == "good"
    assert well["in use"].state == "good"
    assert well["Python there"].figure.startswith("3.")
    assert well["runtime onnxruntime"].state == "good"
    assert not [one for one in well.values() if one.state == "blocked"]

    told = virtual_pi.folder / SYS_FOLDER
    before = {name: (told / name).read_text() for name in (TEMPERATURE, THROTTLED)}
    try:
        (told / TEMPERATURE).write_text("84000\n")
        (told / THROTTLED).write_text("50005\n")
        ill = visited(device, board)
    finally:
        for name, value in before.items():
            (told / name).write_text(value)
    assert (ill["temperature"].state, ill["temperature"].figure) == ("warning", "84 °C")
    assert "the voltage is too low, it is throttled" in ill["throttling"].figure
    assert "power supply" in ill["throttling"].advice


def test_a_board_that_another_laptop_has_is_left_alone(board: RemoteTransport, virtual_pi: Reached) -> None:
    with contextlib.closing(way_to(virtual_pi)) as other:
        assert other.acquire(60.0)
        found = visited(Device(name="board"), board)
        other.check_lease()
    assert found["in use"].state == "warning"
    assert "@" in found["in use"].figure
    assert "programs" not in found


def test_a_phone_that_is_well_and_one_that_is_almost_empty(virtual_phone: Plugged) -> None:
    state = AndroidState(virtual_phone.folder / STATE_FOLDER)
    with contextlib.closing(RemoteTransport(virtual_phone.link("phone"))) as way:
        well = visited(Device(name="phone"), way)
        state.set_battery(level=9, charging=False, temp_c=43.0)
        try:
            ill = visited(Device(name="phone"), way)
        finally:
            state.set_battery()
    assert "Android" in well["found"].figure
    assert well["target"].figure == "android-arm64 (recognised)"
    assert (well["battery"].state, well["battery"].figure) == ("good", "85 %, charging")
    assert well["free space"].state == "warning"  # 64 MiB of /data
    assert "Android has not" in well["runtime onnxruntime"].advice
    assert well["programs"].state == "good"
    assert (ill["battery"].state, ill["battery"].figure) == ("warning", "9 %, not charging")
    assert (ill["battery's heat"].state, ill["battery's heat"].figure) == ("warning", "43 °C")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("pi@127.0.0.1:1", ["nothing listens", "systemctl"]),
        ("pi@board.invalid", ["board.invalid"]),
        ("virtual-pi", ["does not run", "edgeprune devices up virtual-pi"]),
    ],
)
def test_a_device_that_is_away_is_told_why(
    address: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    last = list(look_there(Device(name=address)))[-1]
    assert (last.check, last.state) == ("reached", "blocked")
    for word in words:
        assert word in last.figure + last.advice


def test_a_phone_without_its_adb_is_told(tmp_path: Path) -> None:
    first, last = look_there(Device(name="phone", adb=str(tmp_path / "adb")))
    assert (first.check, first.state, last.state) == ("adb", "blocked", "blocked")
    assert "apt-get install adb" in first.advice
