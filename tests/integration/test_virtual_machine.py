"""The stand-in that is a whole machine: its own kernel and memory, a network to spoil, and a reset that it survives."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from edgeprune.errors import DeviceError
from edgeprune.standins import machine
from tests.standins import Reached

MEMORY_KIB = 512 * 1024


def boot_of(device: Reached) -> str:
    return device.run("cat /proc/sys/kernel/random/boot_id").stdout.decode()


def test_kernel_and_memory_are_its_own(virtual_vm: Reached) -> None:
    told = virtual_vm.run("uname -mr; sed -n 's/^MemTotal: *//p' /proc/meminfo; id -un").stdout.decode().split()
    release, architecture, memory_kib, _, user = told
    assert release != os.uname().release
    assert (architecture, user) == ("aarch64", "pi")
    assert 0.9 * MEMORY_KIB < int(memory_kib) < MEMORY_KIB, "what its kernel takes is missing"


def test_a_program_of_this_machine_is_refused(virtual_vm: Reached) -> None:
    if os.uname().machine == "aarch64":
        pytest.skip("this machine's programs are of the same architecture")
    program = Path(shutil.which("true") or "").read_bytes()
    done = virtual_vm.run("cat >program && chmod +x program && ./program", stdin=program)
    assert done.returncode == 126
    assert b"Exec format error" in done.stderr


def test_its_network_can_be_made_bad(virtual_vm: Reached) -> None:
    ping = "busybox ping -q -c 3 -W 1 10.0.2.2"
    bad = f"tc qdisc add dev eth0 root netem loss 100%; {ping}; tc qdisc del dev eth0 root; {ping}"
    told = virtual_vm.run(bad, user="root").stdout
    assert [b" 100% packet loss" in line for line in told.splitlines() if b"packet loss" in line] == [True, False], told


def test_it_reaches_nothing_outside(virtual_vm: Reached) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = virtual_vm.run(f"busybox nc -w 3 10.0.2.2 {port} </dev/null")
        assert done.returncode != 0
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_it_comes_back_from_a_reset(virtual_vm: Reached) -> None:
    before = boot_of(virtual_vm)
    assert virtual_vm.run("echo kept >kept && sync; nohup sleep 1000 >/dev/null 2>&1 &").returncode == 0
    machine.reset(virtual_vm.folder)
    deadline = time.monotonic() + 180
    while (after := boot_of(virtual_vm)) in ("", before):
        assert time.monotonic() < deadline, (virtual_vm.folder / "log").read_text()[-2000:]
        time.sleep(0.5)
    assert after != before
    assert virtual_vm.run("cat kept; pgrep -x sleep -u pi").stdout == b"kept\n"


def test_what_does_not_run_cannot_be_reset(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be reset"):
        machine.reset(tmp_path)
