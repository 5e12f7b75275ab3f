"""What adb says where no phone is needed to say it: an adb that is told its words stands in for old and odd phones."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.transport import Device, attached_phones, link_to
from edgeprune.transport.adb import AdbLink
from edgeprune.transport.adb_words import Attached, state_error

# notes what it is asked, and answers with what lies in the file of that name
ADB = """\
#!/bin/sh
echo "$*" >>{folder}/asked
case $* in
  *'devices -l') printf 'List of devices attached\\nR58N\\t%s usb:1-4\\n' "$(cat {folder}/state)" ;;
  *features) cat {folder}/features ;;
  *) exit 1 ;;
esac
"""


class Adb:
    """An adb program with one phone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "adb"
        self.path.write_text(ADB.format(folder=folder))
        self.path.chmod(0o755)
        self.tell("device", "cmd\nshell_v2\nstat_v2\n")

    def tell(self, state: str, features: str) -> None:
        (self.folder / "state").write_text(state)
        (self.folder / "features").write_text(features)

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def adb(tmp_path: Path) -> Adb:
    return Adb(tmp_path)


def test_an_android_that_tells_no_exit_status_is_too_old(adb: Adb) -> None:
    adb.tell("device", "cmd\nstat_v2\n")
    with pytest.raises(TransportError, match="its Android is too old: adb has no shell_v2") as caught:
        AdbLink("phone", adb=str(adb.path)).check()
    assert not isinstance(caught.value, LinkLostError)
    assert "Android 7 or newer" in str(caught.value.hint)
    adb.tell("device", "cmd\nshell_v2\n")
    AdbLink("phone", adb=str(adb.path)).check()


def test_a_device_s_own_adb_and_port_and_serial_are_used(adb: Adb) -> None:
    device = Device(name="tablet", address="adb:R58N", adb=str(adb.path), server_port=5555)
    link = link_to(device)
    link.check()
    assert adb.asked() == ["-P 5555 devices -l", "-P 5555 -s R58N features"]
    assert link.command(["true"])[:5] == [str(adb.path), "-P", "5555", "-s", "R58N"]
    link.close()


@pytest.mark.parametrize(
    ("state", "lasting"),
    [
        ("authorizing", False),
        ("recovery", False),
        ("bootloader", False),
        ("sideload", False),
        ("offline", False),
        ("unauthorized", True),
        ("no permissions", True),
    ],
)
def test_a_phone_that_could_be_used_before_passes_through_states_while_it_restarts(state: str, lasting: bool) -> None:
    phone = Attached("R58N", state, "")
    before = state_error("phone", None, [phone], phone, was_there=True)
    assert isinstance(before, LinkLostError) != lasting
    assert before.hint
    never = state_error("phone", None, [phone], phone, was_there=False)
    assert isinstance(never, LinkLostError) == (state == "offline")
    assert never.message == before.message


def test_a_phone_that_is_still_authorizing_after_its_restart_is_waited_for(
    adb: Adb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.transport.adb._SETTLE_SECONDS", 0.2)
    link = AdbLink("phone", adb=str(adb.path))
    link.check()
    adb.tell("authorizing", "")
    with pytest.raises(LinkLostError, match="does not know this computer yet"):
        link.check()
    adb.tell("device", "shell_v2\n")
    link.check()


@pytest.mark.parametrize("port", ["adb", "-1", "70000", "5037 "])
def test_a_port_that_adb_refuses_finds_no_phones(port: str, adb: Adb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{adb.folder}:/usr/bin:/bin")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    assert attached_phones() == []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.getsockname()[1]))
        assert [one.serial for one in attached_phones()] == ["R58N"]
