"""The emulated Raspberry Pi: a real aarch64 OpenSSH server on the loopback, its programs run under qemu-user.

Its times say nothing and its memory is qemu's; its shell, its files, its server and its programs' numbers are real.
Start with `up`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeprune.emulation import static_emulator
from edgeprune.standins import board, rootfs, ssh_keys, supervisor
from edgeprune.standins.namespace import Setting, outside_user

SYS_FOLDER = "sys"


def up(folder: Path, say: Callable[[str], None], *, disk_bytes: int | None = None, bound_to: int | None = None) -> Path:
    """Start it.

    Args:
        folder: What is its own: keys, the user's files, what it tells under /sys (see `board`), its log.
        say: Told what takes long.
        disk_bytes: Keep the user's files in memory and let them take so much at most; None: in `folder`, without limit.
        bound_to: Read end of a pipe that it lives as long as.

    Returns:
        `device.json`: how it is reached.

    Raises:
        DeviceError: this machine cannot run it; the detail is what its programs said.
    """
    root, emulator = rootfs.rootfs(say), static_emulator("aarch64")
    home, server = folder / "home", folder / "ssh"
    for made in (home, server):
        made.mkdir(mode=0o700, exist_ok=True)
    board.write_board(folder / SYS_FOLDER)
    host_key, client_key = ssh_keys.keys(folder, rootfs.HOST_NAME)
    (server / "authorized_keys").write_text(f"{client_key}\n")
    (server / ssh_keys.HOST_KEY).write_bytes((folder / ssh_keys.HOST_KEY).read_bytes())
    (server / ssh_keys.HOST_KEY).chmod(0o600)
    port = ssh_keys.free_port()
    (server / "sshd_config").write_text(
        f"ListenAddress {ssh_keys.HOST}\nPort {port}\n{ssh_keys.server_rules(rootfs.USER)}"
    )
    for owned in (home, server):
        ssh_keys.own(owned, outside_user())
    at_home = f"home/{rootfs.USER}"
    setting = Setting(
        str(root),
        str(emulator),
        ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"],
        binds=[
            (str(server), "etc/ssh"),
            (str(folder / SYS_FOLDER), "sys"),
            *([(str(home), at_home)] if disk_bytes is None else []),
        ],
        scratch=[("tmp", 1 << 30), ("run", 1 << 26), *([(at_home, disk_bytes)] if disk_bytes is not None else [])],
        host_name=rootfs.HOST_NAME,
        user=rootfs.USER_ID,
    )
    (folder / supervisor.LOG_FILE).write_text("")
    supervisor.start(folder / supervisor.RECORD_FILE, folder / supervisor.LOG_FILE, setting.words(), bound_to=bound_to)
    ssh_keys.wait_for_server(folder, port)
    return ssh_keys.introduce(folder, port, rootfs.USER, host_key)
