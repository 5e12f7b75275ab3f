"""The emulated phone is one to the real adb: of Debian, and the newer one of the Python package adbutils."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgeprune import standins
from edgeprune.standins import phone
from edgeprune.standins.adb_auth import signed_by
from edgeprune.standins.android_state import AndroidState
from tests.integration.test_standins import processes, traces
from tests.processes import left_after, running
from tests.standins import Plugged, start_phone

TMP = "/data/local/tmp"


@pytest.fixture(params=["debian", "adbutils"])
def adb(request: pytest.FixtureRequest) -> str:
    """The path of an adb program."""
    if request.param == "debian":
        found = shutil.which("adb")
        assert found is not None, "the phone would not run without"
        return found
    package = importlib.util.find_spec("adbutils")
    if package is None or not package.submodule_search_locations:
        if os.environ.get("CI"):
            pytest.fail("adbutils is not installed, and CI must have it")
        pytest.skip("adbutils is not installed: pip install 'edgeprune[adb]'")
    return str(Path(package.submodule_search_locations[0]) / "binaries" / "adb")


@pytest.fixture
def place(virtual_phone: Plugged) -> Iterator[str]:
    """An empty folder on the phone."""
    yield f"{TMP}/place"
    virtual_phone.shell(f"rm -rf {TMP}/place")


# --- what is there ----------------------------------------------------------------------------------------------------


def test_programs_user_and_properties_are_a_phone_s(virtual_phone: Plugged) -> None:
    assert virtual_phone.shell("uname -m; id -u; id -un; pwd").split() == [b"aarch64", b"2000", b"shell", b"/"]
    abi, sdk, nothing = virtual_phone.shell(
        "getprop ro.product.cpu.abi; getprop ro.build.version.sdk; getprop no.such.thing none"
    ).split()
    assert (abi, sdk, nothing) == (b"arm64-v8a", b"34", b"none")
    assert b"[ro.product.model]: [Stand-in]" in virtual_phone.shell("getprop")
    assert b"toybox" in virtual_phone.shell("readlink /system/bin/taskset")
    assert b"MIRBSD KSH" in virtual_phone.shell("echo $KSH_VERSION")


def test_only_data_can_be_written(virtual_phone: Plugged) -> None:
    done = virtual_phone.run(
        "shell", "touch /system/x /vendor/x; echo 3 >/proc/sys/vm/drop_caches; touch /data/local/tmp/x"
    )
    assert done.returncode == 0
    assert done.stderr.count(b"Read-only file system") == 2, done.stderr
    assert b"drop_caches" in done.stderr
    assert set(virtual_phone.shell("sed -n 's/^Cap[IPE].*\t//p' /proc/self/status").split()) == {b"0" * 16}
    refused = virtual_phone.run("push", __file__, "/system/x")
    assert refused.returncode != 0
    assert b"Read-only file system" in refused.stderr + refused.stdout


def test_a_program_that_wants_linux_s_loader_does_not_start(virtual_phone: Plugged, place: str) -> None:
    loader = b"/lib/ld-linux-aarch64.so.1"
    toybox = virtual_phone.run("exec-out", "cat /system/bin/toybox").stdout
    assert toybox.count(b"/system/bin/linker64\0") == 1
    back = toybox.replace(b"/system/bin/linker64".ljust(len(loader), b"\0"), loader)
    virtual_phone.run("shell", "-T", f"mkdir -p {place}; cat >{place}/toybox; chmod 700 {place}/toybox", stdin=back)
    done = virtual_phone.run("shell", "-T", f"{place}/toybox true")
    # a phone's kernel says that there is no such file, and its shell 127; here qemu is the one to say it
    assert done.returncode == 255
    assert b"/lib/ld-linux-aarch64.so.1': No such file" in done.stderr


def test_battery_and_heat_say_what_a_test_wants(virtual_phone: Plugged) -> None:
    state = AndroidState(virtual_phone.folder / phone.STATE_FOLDER)
    try:
        state.set_battery(level=12, charging=False, temp_c=41.5)
        state.set_thermal(status=3, temp_c=62.25)
        battery = dict(
            line.strip().split(": ") for line in virtual_phone.shell("dumpsys battery").decode().split("\n")[1:-1]
        )
        assert (battery["level"], battery["status"], battery["temperature"]) == ("12", "3", "415")
        assert battery["USB powered"] == "false"
        assert b"Thermal Status: 3\n" in virtual_phone.shell("dumpsys thermalservice")
        assert virtual_phone.shell("cat /sys/class/thermal/thermal_zone0/temp") == b"62250\n"
        assert virtual_phone.shell("cat /sys/class/power_supply/battery/capacity") == b"12\n"
    finally:
        state.set_battery()
        state.set_thermal()


# --- programs ---------------------------------------------------------------------------------------------------------


def test_every_status_comes_back(virtual_phone: Plugged, adb: str) -> None:
    wanted = [*range(0, 256, 15), 1, 126, 127, 128, 254]
    told = [virtual_phone.run("shell", "-T", f"exit {status}", adb=adb).returncode for status in wanted]
    assert told == wanted
    assert virtual_phone.run("shell", "-T", "kill -9 $$", adb=adb).returncode == 137


def test_streams_are_apart_and_whole(virtual_phone: Plugged, adb: str) -> None:
    content = os.urandom(20_000_000)
    done = virtual_phone.run("shell", "-T", "echo told >&2; cat; echo later >&2", stdin=content, adb=adb)
    assert done.stdout == content
    assert done.stderr == b"told\nlater\n"
    assert done.returncode == 0


def test_a_program_that_reads_nothing_ends_and_its_words_arrive(virtual_phone: Plugged, adb: str) -> None:
    done = virtual_phone.run("shell", "-T", "echo here; exit 4", stdin=bytes(5_000_000), adb=adb)
    assert (done.returncode, done.stdout) == (4, b"here\n")


def test_the_end_of_the_client_is_the_end_of_stdin(virtual_phone: Plugged, place: str) -> None:
    line = f"mkdir -p {place}; echo up; cat >/dev/null; echo over >{place}/over; echo written >&2"
    command = [virtual_phone.adb, "-P", str(virtual_phone.server_port), "-s", virtual_phone.serial, "shell", "-T", line]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        client.kill()
    virtual_phone.shell(f"until [ -e {place}/over ]; do sleep 0.1; done")


# --- files ------------------------------------------------------------------------------------------------------------


def random_tree(root: Path, seed: int) -> None:
    """Folders and files with sizes around those of packets, and names that a shell would stumble over."""
    random_ = random.Random(seed)
    names = ["plain", "with space", "quote'\"$(x)`y`;&|<>*?", "-n", "ümlaut", "日本", "back\\slash", "x" * 200]
    folders = [root]
    for number in range(6):
        folders.append(random_.choice(folders) / f"{random_.choice(names)}{number}")
        folders[-1].mkdir()
    for number, size in enumerate([0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, random_.randrange(3_000_000)]):
        path = random_.choice(folders) / f"{number}{random_.choice(names)}"
        path.write_bytes(random_.randbytes(size))
        path.chmod(random_.choice([0o644, 0o755, 0o600]))
        os.utime(path, (1_600_000_000, 1_600_000_000 + number))


def described(root: Path) -> dict[str, tuple[bytes, float]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), int(path.stat().st_mtime))
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trees_come_back_as_they_went(virtual_phone: Plugged, adb: str, place: str, tmp_path: Path, seed: int) -> None:
    (tmp_path / "sent").mkdir()
    random_tree(tmp_path / "sent", seed)
    pushed = virtual_phone.run("push", f"{tmp_path}/sent/.", place, adb=adb)
    assert pushed.returncode == 0, pushed.stderr + pushed.stdout
    pulled = virtual_phone.run("pull", "-a", f"{place}/.", f"{tmp_path}/back", adb=adb)
    assert pulled.returncode == 0, pulled.stderr + pulled.stdout
    assert described(tmp_path / "back") == described(tmp_path / "sent")


def test_links_and_modes_are_kept(virtual_phone: Plugged, place: str, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/system/bin/sh\necho runs\n")
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "link").symlink_to("program")
    assert virtual_phone.run("push", f"{tmp_path}/.", place).returncode == 0
    assert virtual_phone.shell(f"{place}/program; stat -c %a {place}/program; readlink {place}/link") == (
        b"runs\n755\nprogram\n"
    )


def test_what_is_not_there_cannot_be_pulled(virtual_phone: Plugged, adb: str, tmp_path: Path) -> None:
    done = virtual_phone.run("pull", f"{TMP}/nothing", str(tmp_path / "x"), adb=adb)
    assert done.returncode != 0
    assert b"No such file or directory" in done.stderr + done.stdout


def test_a_full_disk_refuses_and_keeps_nothing(virtual_phone: Plugged, adb: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    virtual_phone.order(do="disk", free_bytes=1_000_000)
    try:
        done = virtual_phone.run("push", f"{tmp_path}/large", f"{place}/large", adb=adb)
        assert done.returncode != 0
        assert b"No space left on device" in done.stderr + done.stdout
        assert b"large" not in virtual_phone.shell(f"ls {place}")
        free = int(virtual_phone.shell("df -k /data/local/tmp | awk 'NR == 2 {print $4}'"))
        assert 900 <= free <= 1000
    finally:
        virtual_phone.order(do="disk", free_bytes=None)
    assert virtual_phone.run("push", f"{tmp_path}/large", f"{place}/large", adb=adb).returncode == 0


# --- whom it lets in, and its faults ----------------------------------------------------------------------------------


def state(plugged: Plugged) -> bytes:
    done = plugged.run("get-state")
    return done.stdout.strip() or done.stderr.strip()


def connect_anew(plugged: Plugged) -> None:
    plugged.run("disconnect", plugged.serial)
    plugged.run("connect", plugged.serial)


def wait_for(plugged: Plugged, wanted: bytes) -> None:
    deadline = time.monotonic() + 30
    while wanted not in (told := state(plugged)):
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def test_only_the_right_key_opens(tmp_path: Path) -> None:
    """The keys are adb's own, the signatures those of OpenSSL."""
    token = os.urandom(20)
    (tmp_path / "token").write_bytes(token)
    for name in ("one", "two"):
        subprocess.run(["adb", "keygen", str(tmp_path / name)], check=True, capture_output=True)
        command = ["openssl", "pkeyutl", "-sign", "-inkey", str(tmp_path / name), "-in", str(tmp_path / "token")]
        command += ["-pkeyopt", "digest:sha1", "-out", str(tmp_path / f"{name}.signature")]
        subprocess.run(command, check=True, capture_output=True)
    key = (tmp_path / "one.pub").read_bytes()
    one, two = ((tmp_path / f"{name}.signature").read_bytes() for name in ("one", "two"))
    assert signed_by(key, token, one)
    assert not signed_by(key, token, two)
    assert not signed_by(key, os.urandom(20), one)
    assert not signed_by(key, token, one[:-1])
    assert not signed_by(b"", token, one)
    assert not signed_by(b"QQ==", token, one)


def test_a_stranger_waits_until_somebody_accepts(tmp_path: Path) -> None:
    for plugged in start_phone(tmp_path / "phone", disk_bytes=8 << 20):
        plugged.order(do="authorize", allowed=False)
        connect_anew(plugged)
        wait_for(plugged, b"unauthorized")
        assert plugged.run("shell", "true").returncode != 0
        plugged.order(do="authorize", allowed=True)
        wait_for(plugged, b"device")
        assert plugged.shell("echo in") == b"in\n"


def test_a_pulled_cable_ends_programs_by_their_stdin(virtual_phone: Plugged, place: str) -> None:
    line = f"mkdir -p {place}; echo up; cat; echo over >{place}/over"
    command = [virtual_phone.adb, "-P", str(virtual_phone.server_port), "-s", virtual_phone.serial, "shell", "-T", line]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        virtual_phone.order(do="drop")
        client.wait(timeout=30)  # its status says nothing: Debian's adb ends with 0
    connect_anew(virtual_phone)
    wait_for(virtual_phone, b"device")
    virtual_phone.shell(f"until [ -e {place}/over ]; do sleep 0.1; done")


def test_a_reboot_ends_programs_and_keeps_files(virtual_phone: Plugged, place: str) -> None:
    boot = virtual_phone.shell("cat /proc/sys/kernel/random/boot_id")
    virtual_phone.shell(f"mkdir -p {place}; echo kept >{place}/file; nohup sleep 1000 >/dev/null 2>&1 </dev/null &")
    assert b"sleep 1000" in virtual_phone.shell("ps -A -o ARGS")
    phone.reboot(virtual_phone.folder)
    connect_anew(virtual_phone)
    wait_for(virtual_phone, b"device")
    assert virtual_phone.shell(f"cat {place}/file") == b"kept\n"
    assert b"sleep 1000" not in virtual_phone.shell("ps -A -o ARGS")
    assert virtual_phone.shell("cat /proc/sys/kernel/random/boot_id") != boot


# --- coming and going -------------------------------------------------------------------------------------------------


def servers_at(port: int) -> list[psutil.Process]:
    """The processes of adb servers at that port."""
    return running(lambda one: one.name() == "adb" and any(str(port) in word for word in one.cmdline()))


def test_nothing_is_left_of_it_though_its_adb_server_was_started_anew(tmp_path: Path) -> None:
    for plugged in start_phone(tmp_path / "phone", disk_bytes=8 << 20):
        own = Path.home() / ".android"
        before = sorted(own.rglob("*")) if own.is_dir() else None
        plugged.shell("nohup sleep 1000 >/dev/null 2>&1 </dev/null &")
        inside = processes(plugged.folder)
        assert any("1000" in words for words in inside.values())
        assert any("nodaemon" in words for words in inside.values())
        assert standins.up("virtual-phone", folder=plugged.folder) == plugged.folder / "device.json", "started twice"
        assert Plugged.by(plugged.folder / "device.json") == plugged
        plugged.run("kill-server")
        plugged.link().check()
        assert (sorted(own.rglob("*")) if own.is_dir() else None) == before
        servers = servers_at(plugged.server_port)
        assert servers
    assert traces(tmp_path) == []
    assert left_after(20, [*inside, *servers]) == []


def test_it_ends_with_the_process_that_it_is_bound_to(virtual_phone: Plugged, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from edgeprune import standins\n"
        f"with standins.running('virtual-phone', Path({str(tmp_path)!r}), say=lambda _: None): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    port = json.loads((tmp_path / "device.json").read_text())["server_port"]
    standins.down("virtual-phone", folder=tmp_path)  # waits, should it be about to end
    assert traces(tmp_path) == []
    assert servers_at(port) == []
