"""Stand-ins are what they claim: a server and programs of another architecture, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgeprune import standins
from edgeprune.errors import UnknownNameError
from edgeprune.standins import board
from tests.processes import left_after
from tests.standins import Reached, start


def traces(of: Path) -> list[str]:
    """What this machine knows of a folder: processes that name it, and mounts that any process can see."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int(process.name) != os.getpid() and str(of).encode() in (process / "cmdline").read_bytes():
                found.append(f"process {process.name}")
            if str(of) in (process / "mountinfo").read_text():
                found.append(f"mount of {process.name}")
    return found


def processes(of: Path) -> dict[psutil.Process, list[str]]:
    """The stand-in's processes as this machine sees them, that of its record and all below it, with their words."""
    first = psutil.Process(json.loads((of / "process.json").read_text())["pid"])
    found = {}
    for process in [first, *first.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found[process] = process.cmdline()
    return found


def test_programs_are_of_the_other_architecture(virtual_pi: Reached) -> None:
    done = virtual_pi.run("uname -m; python3 -c 'import platform, ssl; print(platform.machine(), 6 * 7)'; whoami; pwd")
    assert done.stdout.decode().split() == ["aarch64", "aarch64", "42", "pi", "/home/pi"], done.stderr
    header = virtual_pi.run("head -c 20 /usr/sbin/sshd").stdout
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183, "not EM_AARCH64"


def test_streams_and_statuses_come_through(virtual_pi: Reached) -> None:
    every_byte = bytes(range(256)) * 1000
    done = virtual_pi.run("cat; echo told >&2; exit 7", stdin=every_byte)
    assert (done.returncode, done.stdout, done.stderr) == (7, every_byte, b"told\n")


def test_a_file_is_sent_by_sftp(virtual_pi: Reached, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "sent").write_bytes(content)
    orders = f"put {tmp_path}/sent 'a name'\nget 'a name' {tmp_path}/back\nrm 'a name'\n"
    target = f"{virtual_pi.user}@{virtual_pi.host}"
    words = ["sftp", *virtual_pi.options(), "-b", "-", target]
    subprocess.run(words, input=orders.encode(), check=True, capture_output=True, timeout=60)
    assert (tmp_path / "back").read_bytes() == content


def test_an_unknown_host_key_is_refused(virtual_pi: Reached, tmp_path: Path) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    options = [word.replace(virtual_pi.known_hosts, str(nobody)) for word in virtual_pi.options()]
    words = ["ssh", *options, f"pi@{virtual_pi.host}", "true"]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


def test_its_user_has_no_right_beyond_its_own_files(virtual_pi: Reached) -> None:
    done = virtual_pi.run(
        "touch /usr/mine; touch /etc/mine; echo 0 >/proc/sys/kernel/core_pattern; touch ~/mine && rm ~/mine"
    )
    assert done.returncode == 0
    assert done.stderr.count(b"Read-only file system") == 2, done.stderr
    assert b"core_pattern" in done.stderr
    assert set(virtual_pi.run("grep Cap[IPE] /proc/self/status | cut -f2").stdout.split()) == {b"0" * 16}


def test_it_listens_on_the_loopback_only(virtual_pi: Reached) -> None:
    port = f":{virtual_pi.port:04X}"
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    listening = [fields[1] for fields in lines if fields[3] == "0A" and fields[1].endswith(port)]
    assert listening == [f"0100007F{port}"]


def test_what_its_board_tells_can_be_changed(virtual_pi: Reached) -> None:
    told = virtual_pi.folder / "sys" / board.THROTTLED
    assert virtual_pi.run("vcgencmd get_throttled").stdout == b"throttled=0x0\n"
    told.write_text("50005\n")
    assert virtual_pi.run("vcgencmd get_throttled").stdout == b"throttled=0x50005\n"
    told.write_text("0\n")


def test_two_run_at_once_and_nothing_of_them_is_left(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with contextlib.ExitStack() as both:
        first = both.enter_context(contextlib.contextmanager(start)("virtual-pi", one))
        second = both.enter_context(contextlib.contextmanager(start)("virtual-pi", two))
        assert first.port != second.port
        assert Path(first.identity).read_text() != Path(second.identity).read_text()
        first.run("touch here")
        assert [reached.run("ls").stdout for reached in (first, second)] == [b"here\n", b""]
        first.run("nohup sleep 1000 >/dev/null 2>&1 &")
        assert standins.up("virtual-pi", folder=one) == one / "device.json", "started twice"
        assert standins.device(one) == {"kind": "ssh", "host": first.host, "port": first.port, "user": "pi"} | {
            "identity": first.identity,
            "known_hosts": first.known_hosts,
        }
        inside = processes(one) | processes(two)
        assert any("1000" in words for words in inside.values())
        assert traces(one)
    assert standins.device(one) is None
    assert traces(tmp_path) == []
    assert left_after(20, inside) == []


def test_it_ends_with_the_process_that_it_is_bound_to(virtual_pi: Reached, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from edgeprune import standins\n"
        f"with standins.running('virtual-pi', Path({str(tmp_path)!r}), say=lambda _: None): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    standins.down("virtual-pi", folder=tmp_path)  # waits, should it be about to end
    assert traces(tmp_path) == []


def test_a_full_disk_is_full(tmp_path: Path) -> None:
    size = 1 << 20
    with contextlib.contextmanager(start)("virtual-pi", tmp_path, disk_bytes=size) as reached:
        done = reached.run(f"head -c {2 * size} /dev/zero >much")
        assert b"No space left on device" in done.stderr
        assert int(reached.run("stat -c %s much").stdout) <= size


def test_a_command_starts_and_ends_it(tmp_path: Path, virtual_pi: Reached) -> None:
    environment = {**os.environ, "EDGEPRUNE_CACHE": str(tmp_path)}
    kept = next(path for path in standins.folder_of("virtual-pi").parent.glob("rootfs-*") if path.is_dir())
    (tmp_path / "standins").mkdir()
    (tmp_path / "standins" / kept.name).symlink_to(kept)

    def devices(*words: str) -> str:
        command = [sys.executable, "-m", "edgeprune", "devices", *words, "virtual-pi"]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    try:
        told = devices("up")
        device = tmp_path / "standins" / "virtual-pi" / "device.json"
        assert str(device) in told
        assert Reached.by(device).run("uname -m").stdout == b"aarch64\n"
        devices("up")
    finally:
        devices("down")
    assert traces(tmp_path) == []
    devices("down")


@pytest.mark.parametrize("name", ["virtual-p", "pi"])
def test_a_wrong_name_is_told(name: str) -> None:
    with pytest.raises(UnknownNameError, match="stand-in"):
        standins.up(name)
