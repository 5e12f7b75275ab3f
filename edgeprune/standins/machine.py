"""The emulated Raspberry Pi as a whole machine: a kernel of its own, true memory, a power switch.

Where `pi` runs programs one by one on this machine's kernel, this one boots: memory figures are those of a device, a
program of another architecture is refused, it reboots, and its network can be made bad inside. Its times say nothing.
root is let in with the same key as its user. Start with `up`, `reset`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from edgeprune.emulation import machine_emulator
from edgeprune.errors import DeviceError
from edgeprune.standins import initrd, rootfs, ssh_keys, supervisor

_CORES, _MEMORY_MIB = 2, 512
_MONITOR_FILE, _INITRD_FILE = "monitor", "initrd"
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/sshd /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
chown -R {number}:{number} /home/{user}
chmod 700 /home/{user}
busybox hostname {host}
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip address add 10.0.2.15/24 dev eth0
/usr/sbin/sshd -D -e &
while :; do wait; sleep 60; done
"""


def up(folder: Path, say: Callable[[str], None], *, bound_to: int | None = None) -> Path:
    """Boot it.

    Args:
        folder: What is its own: keys, its console's log; what its user writes is gone when it ends.
        say: Told what takes long.
        bound_to: Read end of a pipe that it lives as long as.

    Returns:
        `device.json`: how it is reached.

    Raises:
        DeviceError: this machine cannot run it; the detail is what its console said.
    """
    root, kernel, emulator = rootfs.rootfs(say), rootfs.kernel(say), machine_emulator()
    image = _image(root, say)
    host_key, client_key = ssh_keys.keys(folder, rootfs.HOST_NAME)
    own = {
        "usr/sbin/init": (0o755, _INIT.format(user=rootfs.USER, number=rootfs.USER_ID, host=rootfs.HOST_NAME).encode()),
        "etc/ssh/sshd_config": (0o644, ssh_keys.server_rules(f"{rootfs.USER} root").encode()),
        "etc/ssh/authorized_keys": (0o644, f"{client_key}\n".encode()),
        "etc/ssh/host_key": (0o600, (folder / ssh_keys.HOST_KEY).read_bytes()),
    }
    (folder / _INITRD_FILE).write_bytes(initrd.initrd(kernel, root / "usr" / "bin" / "busybox", own))
    (image_of_kernel,) = (kernel / "boot").glob("vmlinuz-*")
    port = ssh_keys.free_port()
    (folder / supervisor.LOG_FILE).write_text("")
    (folder / _MONITOR_FILE).unlink(missing_ok=True)
    words = [str(emulator.program), *_words(image_of_kernel, folder / _INITRD_FILE, image, port)]
    supervisor.start(
        folder / supervisor.RECORD_FILE,
        folder / supervisor.LOG_FILE,
        words,
        bound_to=bound_to,
        environment=emulator.environment(),
    )
    ssh_keys.wait_for_server(folder, port)
    return ssh_keys.introduce(folder, port, rootfs.USER, host_key)


def reset(folder: Path) -> None:
    """Press the reset button: it boots again, whatever it was doing. What it wrote to its disk stays.

    Raises:
        DeviceError: it does not run.
    """
    place = os.open(folder, os.O_PATH)  # the way there may be too long for the address of a socket
    try:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(30)
            monitor.connect(f"/proc/self/fd/{place}/{_MONITOR_FILE}")
            answers = monitor.makefile("rb")
            answers.readline()  # its greeting
            for order in ("qmp_capabilities", "system_reset"):
                monitor.sendall(json.dumps({"execute": order}).encode())
                while b'"return"' not in (line := answers.readline()):
                    if not line or b'"error"' in line:
                        raise OSError(f"{order}: {line.decode(errors='replace')}")
    except OSError as error:
        raise DeviceError(
            f"{folder.name}: cannot be reset: {error}", hint="does it run? edgeprune devices up"
        ) from error
    finally:
        os.close(place)


def _words(kernel: Path, initrd: Path, image: Path, port: int) -> list[str]:
    # of the network only the way in: it can reach nothing, and only this machine reaches it
    network = f"user,id=net,restrict=on,hostfwd=tcp:{ssh_keys.HOST}:{port}-:22"
    return [
        "-machine", "virt", "-cpu", "cortex-a72", "-smp", str(_CORES), "-m", str(_MEMORY_MIB),
        "-accel", "tcg,thread=multi",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyAMA0 quiet panic=1 mitigations=off",
        "-drive", f"if=none,id=disk,format=raw,snapshot=on,file={image}", "-device", "virtio-blk-pci,drive=disk",
        "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
        "-nodefaults", "-display", "none", "-qmp", f"unix:{_MONITOR_FILE},server=on,wait=off",
        "-chardev", f"file,id=console,append=on,path={supervisor.LOG_FILE}", "-serial", "chardev:console",
    ]  # fmt: skip


def _image(root: Path, say: Callable[[str], None]) -> Path:
    """The disk's image of the system, made once."""
    image = root.parent / "disk.img"
    with (root.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.is_file():
            say("making the disk's image (once)")
            initrd.disk(root, image)
    return image
