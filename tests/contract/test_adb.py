"""The way over adb, against the emulated phone and the real adb: what goes wrong, and what is said of it."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import DeviceError, LinkLostError, TransportError
from edgeprune.standins import phone
from edgeprune.standins.android_state import AndroidState
from edgeprune.standins.ssh_keys import free_port
from edgeprune.transport import RemoteTransport
from edgeprune.transport.adb import FOLDER, AdbLink, find_adb
from edgeprune.transport.adb_words import attached
from tests.standins import Plugged, start_phone

ODD_WORDS = ["", " ", "it's", '"', "$(id)", "`id`", "\\", "\\n", "a\nb", "~", "*", "-n", "ü日", "\t", "!", "#", "%s"]
PATIENCE = 120.0
MEGABYTE = 1 << 20

# says 4000 lines at once, while the agent reads its sensors once a second
CHATTERBOX = """
read -r request
n=0
while [ $n -lt 4000 ]; do
  n=$((n + 1))
  echo "{\\"n\\":$n,\\"and\\":\\"a rather long line, so that it takes a while to write\\"}"
  [ $((n % 100)) -ne 0 ] || sleep 0.1
done
read -r request
"""


@pytest.fixture
def transport(virtual_phone: Plugged) -> Iterator[RemoteTransport]:
    """The whole way to the phone, taken for the test."""
    way = RemoteTransport(virtual_phone.link())
    assert way.acquire()
    yield way
    way.close()
    virtual_phone.shell(f"rm -rf {FOLDER}")


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[int]:
    """The port of an adb server that knows no phone; its key is in `tmp_path`."""
    port = free_port()
    (tmp_path / ".android").mkdir()
    yield port
    subprocess.run(["adb", "-P", str(port), "kill-server"], capture_output=True, check=False)


def workers(plugged: Plugged) -> list[bytes]:
    """The programs that run on the phone, besides those that look."""
    lines = plugged.shell("ps -A -o ARGS").splitlines()
    return [line for line in lines if b"edgeprune/launches" in line or b" cat" in line]


def nothing_runs(plugged: Plugged) -> None:
    deadline = time.monotonic() + 30
    while left := workers(plugged):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


# --- programs and files -----------------------------------------------------------------------------------------------


def test_words_arrive_as_they_are(virtual_phone: Plugged) -> None:
    done = virtual_phone.link().call(
        ["sh", "-c", 'for w; do echo "$w|"; done; cat; echo err >&2; exit 9', "sh", *ODD_WORDS]
    )
    assert done.stdout.decode() == "".join(f"{word}|\n" for word in ODD_WORDS)
    assert (done.status, done.stderr) == (9, b"err\n")


def test_bytes_of_both_streams_are_kept(virtual_phone: Plugged) -> None:
    content = bytes(range(256)) * 1000 + b"\r\n~.\x04\x1a"
    assert virtual_phone.link().call(["cat"], stdin=content).stdout == content


def test_a_program_that_does_not_end_is_given_up(virtual_phone: Plugged) -> None:
    with pytest.raises(LinkLostError, match="no answer over adb for 2 s"):
        virtual_phone.link().call(["cat", "/dev/full"], stdin=b"", timeout=2.0)


def test_a_file_that_is_not_there_is_told(virtual_phone: Plugged, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot read /data/local/tmp/nothing"):
        virtual_phone.link().fetch("/data/local/tmp/nothing", tmp_path / "x")


def test_a_full_phone_is_told_and_nothing_stays(
    virtual_phone: Plugged, transport: RemoteTransport, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3 * MEGABYTE))
    virtual_phone.order(do="disk", free_bytes=MEGABYTE)
    try:
        with pytest.raises(TransportError, match="no room for large") as told:
            transport.push([tmp_path / "large"])
        assert not isinstance(told.value, LinkLostError)
        assert virtual_phone.shell(f"find {FOLDER}/pushed -type f") == b""
    finally:
        virtual_phone.order(do="disk", free_bytes=None)
    (remote,) = transport.push([tmp_path / "large"])
    transport.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_full_phone_gives_up_what_was_discarded(
    virtual_phone: Plugged, transport: RemoteTransport, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(os.urandom(3 * MEGABYTE))
    (old,) = transport.push([tmp_path / "old"])
    virtual_phone.order(do="disk", free_bytes=MEGABYTE)
    try:
        transport.discard(old)
        (new,) = transport.push([tmp_path / "new"])
        assert virtual_phone.shell(f"find {FOLDER}/pushed -type f").decode().split() == [new]
    finally:
        virtual_phone.order(do="disk", free_bytes=None)


# --- the agent under Android's own shell and tools --------------------------------------------------------------------


def test_facts_are_the_phone_s(virtual_phone: Plugged, transport: RemoteTransport) -> None:
    state = AndroidState(virtual_phone.folder / phone.STATE_FOLDER)
    state.set_battery(level=37, charging=False, temp_c=33.5)
    state.set_thermal(temp_c=44.5)
    try:
        facts = transport.facts()
    finally:
        state.set_battery()
        state.set_thermal()
    assert (facts["abi"], facts["sdk"], facts["model"]) == ("arm64-v8a", 34, "Stand-in")
    assert facts["battery"] == {"percent": 37, "charging": False, "temp_c": 33.5}
    assert facts["temp_c"] == 44.5
    assert facts["machine"] == "aarch64"
    assert facts["emulated"]
    assert facts["python"] == ""
    assert facts["os"] == "Android 14"
    assert 0 < facts["free_bytes"] <= 64 * MEGABYTE
    assert [core["capacity"] for core in facts["cores"]][-1] == 1024
    assert facts["boot_id"] == state.boot_id.read_text().strip()


def test_lines_of_worker_and_agent_do_not_mix(transport: RemoteTransport, tmp_path: Path) -> None:
    """toybox's printf writes byte by byte, so only the shell's own words may go where others write too."""
    (tmp_path / "chatterbox").write_text(CHATTERBOX)
    (program,) = transport.push([tmp_path / "chatterbox"])
    channel = transport.run(["sh", program], [0])
    channel.send({})
    assert [channel.receive(PATIENCE)["n"] for _ in range(4000)] == list(range(1, 4001))
    assert len(channel.readings) > 1
    assert {reading["battery"]["percent"] for reading in channel.readings} == {85}
    channel.stop()


# --- states -----------------------------------------------------------------------------------------------------------


def test_no_phone_is_told(lonely: int, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="no phone is attached") as told:
        AdbLink("phone", None, lonely, environment=phone.own_environment(tmp_path)).check()
    assert "USB debugging" in str(told.value.hint)
    assert not isinstance(told.value, LinkLostError)
    with pytest.raises(TransportError, match="no device R58N is attached"):
        AdbLink("adb:R58N", "R58N", lonely, environment=phone.own_environment(tmp_path)).check()


def test_of_several_phones_one_must_be_named(virtual_phone: Plugged, tmp_path: Path) -> None:
    for other in start_phone(tmp_path / "other", disk_bytes=8 * MEGABYTE):
        # it does not know the first one's key, but it is there
        virtual_phone.run("connect", other.serial)
        try:
            with pytest.raises(TransportError, match="2 devices are attached") as told:
                AdbLink("phone", None, virtual_phone.server_port, environment=virtual_phone.environment).check()
            assert f"adb:{virtual_phone.serial} (Stand_in)" in str(told.value.hint)
            with pytest.raises(TransportError, match="does not know this computer"):
                AdbLink("other", other.serial, virtual_phone.server_port, environment=virtual_phone.environment).check()
            virtual_phone.link().check()
        finally:
            virtual_phone.run("disconnect", other.serial)
    AdbLink("phone", None, virtual_phone.server_port, environment=virtual_phone.environment).check()


def test_a_phone_that_knows_nobody_wants_a_tap(virtual_phone: Plugged) -> None:
    link = virtual_phone.link()
    link.check()
    virtual_phone.order(do="authorize", allowed=False)
    try:
        with pytest.raises(TransportError, match="does not know this computer") as told:
            link.call(["true"])
        assert "Allow USB debugging" in str(told.value.hint)
        assert not isinstance(told.value, LinkLostError)
    finally:
        virtual_phone.order(do="authorize", allowed=True)
    assert link.call(["echo", "in"]).stdout == b"in\n"


def test_a_phone_that_is_offline_may_come_back(virtual_phone: Plugged) -> None:
    link = virtual_phone.link()
    link.check()
    virtual_phone.order(do="offline", offline=True)
    try:
        with pytest.raises(LinkLostError):
            link.call(["true"])
    finally:
        virtual_phone.order(do="offline", offline=False)
    assert link.call(["echo", "back"]).stdout == b"back\n"


def test_states_of_usb_are_understood() -> None:
    listing = b"* daemon started successfully\nList of devices attached\n" + (
        b"0123  no permissions (user in plugdev group; are your udev rules wrong?); see [x] usb:1-1 transport_id:1\n"
        b"R58N  unauthorized usb:1-4 transport_id:3\n10.0.0.5:5555  device product:p model:SM_P610 device:d\n\n"
    )
    assert [(one.serial, one.state, one.model) for one in attached(listing)] == [
        ("0123", "no permissions", ""),
        ("R58N", "unauthorized", ""),
        ("10.0.0.5:5555", "device", "SM_P610"),
    ]


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="no program adb-of-mine") as told:
        find_adb("adb-of-mine")
    assert "apt-get install adb" in str(told.value.hint)
    monkeypatch.setenv("PATH", str(tmp_path))
    with contextlib.suppress(TransportError):  # where adbutils is not installed
        assert Path(find_adb()).parts[-3:] == ("adbutils", "binaries", "adb")


# --- faults in the middle of something --------------------------------------------------------------------------------


def test_a_killed_server_is_started_anew(virtual_phone: Plugged) -> None:
    link = virtual_phone.link()
    for _ in range(3):
        virtual_phone.run("kill-server")
        assert link.call(["echo", "here"]).stdout == b"here\n"


@pytest.mark.parametrize("fault", ["server", "cable"])
def test_a_push_that_is_cut_can_be_repeated(
    virtual_phone: Plugged, transport: RemoteTransport, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(16 * MEGABYTE))

    def break_it() -> None:
        time.sleep(0.3)
        virtual_phone.run("kill-server") if fault == "server" else virtual_phone.order(do="drop")

    breaker = threading.Thread(target=break_it)
    breaker.start()
    # it may be over before the fault
    with contextlib.suppress(LinkLostError):
        transport.push([tmp_path / "large"])
    breaker.join()
    (remote,) = transport.push([tmp_path / "large"])
    transport.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    assert virtual_phone.shell(f"ls -a {os.path.dirname(remote)} | grep -c part; true") == b"0\n"


def test_a_silent_link_costs_nothing(virtual_phone: Plugged, transport: RemoteTransport) -> None:
    channel = transport.run(["cat"], None)
    channel.send({"n": 0})
    assert channel.receive(PATIENCE) == {"n": 0}
    virtual_phone.order(do="silent", silent=True)
    for number in range(1, 20):
        channel.send({"n": number})
    time.sleep(2)
    virtual_phone.order(do="silent", silent=False)
    assert [channel.receive(PATIENCE)["n"] for _ in range(1, 20)] == list(range(1, 20))
    channel.stop()
    nothing_runs(virtual_phone)


@pytest.mark.parametrize("fault", ["server", "cable", "reboot"])
def test_a_cut_run_loses_and_repeats_nothing_and_leaves_nothing(
    virtual_phone: Plugged, transport: RemoteTransport, fault: str
) -> None:
    """The phone sees the cut at once and ends the program in 2 s; whoever is back sooner goes on, others start anew."""
    channel = transport.run(["cat"], None)
    channel.send({"n": 0})
    assert channel.receive(PATIENCE) == {"n": 0}
    if fault == "server":
        virtual_phone.run("kill-server")
    elif fault == "cable":
        virtual_phone.order(do="drop")
    else:
        phone.reboot(virtual_phone.folder)
    came = []
    with contextlib.suppress(DeviceError):
        for number in range(1, 10):
            channel.send({"n": number})
        came = [channel.receive(PATIENCE)["n"] for _ in range(1, 10)]
    assert came == list(range(1, len(came) + 1))
    channel.stop()
    nothing_runs(virtual_phone)
    again = transport.run(["cat"], None)
    again.send({"n": 10})
    assert again.receive(PATIENCE) == {"n": 10}
    again.stop()
    nothing_runs(virtual_phone)
