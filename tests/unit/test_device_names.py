"""Names of devices: every form is taken, nothing else is, and mistakes in a user's file are told with line and name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune import transport
from edgeprune.errors import UserError
from edgeprune.transport.names import Device, Way


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file of devices, to be written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "edgeprune").mkdir()
    return tmp_path / "edgeprune" / "devices.yaml"


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("local", Way("local")),
        ("phone", Way("adb")),
        ("adb:192.168.1.7:5555", Way("adb", serial="192.168.1.7:5555")),
        ("pi@raspberrypi.local", Way("ssh", host="raspberrypi.local", user="pi")),
        ("pi@10.0.0.5:2222", Way("ssh", host="10.0.0.5", user="pi", port=2222)),
        ("pi@[fe80::1]:22", Way("ssh", host="fe80::1", user="pi", port=22)),
        ("ssh:desk", Way("ssh", host="desk")),
        ("virtual-pi", Way("virtual", host="virtual-pi")),
    ],
)
def test_every_form_is_taken(name: str, way: Way, own: Path) -> None:
    assert transport.find(name).way() == way


@pytest.mark.parametrize(
    "name",
    [
        "-oProxyCommand=x@host",
        "pi@-oProxyCommand=x",
        "ssh:-oProxyCommand=x",
        "adb:-s",
        "pi@host:0",
        "pi@host:65536",
        "pi@host name",
        "pi@host;reboot",
        "pi@",
        "@host",
        "pi@host\n",
        "usb:1",
    ],
)
def test_nothing_else_is(name: str, own: Path) -> None:
    with pytest.raises(UserError) as caught:
        transport.find(name)
    assert "user@host" in str(caught.value.hint)


def test_a_wrong_word_gets_the_nearest_right_one(own: Path) -> None:
    own.write_text("devices:\n  - {name: desk-pi, address: pi@10.0.0.5}\n")
    with pytest.raises(UserError, match="unknown device 'desk_pi'") as caught:
        transport.find("desk_pi")
    assert "did you mean desk-pi?" in str(caught.value.hint)


def test_the_user_s_names_and_those_of_a_matrix(own: Path) -> None:
    own.write_text("devices:\n  - {name: desk-pi, address: pi@10.0.0.5, target: rpi4, cores: [3]}\n")
    assert transport.names()[-1] == "desk-pi"
    assert transport.find("desk-pi") == Device(name="desk-pi", address="pi@10.0.0.5", target="rpi4", cores=(3,))
    other = Device(name="desk-pi", address="pi@10.0.0.6")
    assert transport.find("desk-pi", [other]) == other
    # what a matrix leaves open, the user's file says
    assert transport.completed(Device(name="desk-pi", cores=(0,))).address == "pi@10.0.0.5"
    assert transport.completed(Device(name="desk-pi", cores=(0,))).cores == (0,)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("devices:\n- {nam: a}\n", 2, "unknown key 'nam'; did you mean name?"),
        ("devices:\n- {address: pi@host}\n", 2, "this key is needed"),
        ("devices:\n- {name: a, address: pi@host}\n- {name: a, address: pi@other}\n", 3, "'a' is there twice"),
        ("devices:\n- {name: a, address: host}\n", 2, "unknown device 'host'"),
        ("devices:\n- {name: a, address: 'pi@host:x'}\n", 2, "'pi@host:x' is no address"),
        ("devices:\n- {name: a, address: pi@host, cores: [-1]}\n", 2, "-1"),
        ("devices:\n- {name: local, address: pi@host}\n", 2, "a meaning of its own"),
        ("devices:\n- {name: emulated-rpi4, address: pi@host}\n", 2, "a meaning of its own"),
        ("device: []\n", 1, "unknown key 'device'; did you mean devices?"),
        ("devices: [\n", 2, "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_told_with_their_line(own: Path, text: str, line: int, words: str) -> None:
    own.write_text(text)
    with pytest.raises(UserError) as caught:
        transport.own_devices()
    told = f"{caught.value.message}; {caught.value.hint}"
    assert f"devices.yaml:{line}" in told
    assert words in told
