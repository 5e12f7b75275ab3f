"""What a stand-in behind ssh keeps in its folder: its keys, its port, its log, and how clients are told of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

from edgeprune.errors import DeviceError
from edgeprune.standins import supervisor
from edgeprune.storage import write_whole

HOST = "127.0.0.1"
DEVICE_FILE = "device.json"
HOST_KEY, CLIENT_KEY = "host_key", "client_key"
_SERVER_RULES = """\
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
# folders above that file belong to whoever made the disk's image, or to nobody in here
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
AllowUsers {users}
Subsystem sftp /usr/lib/openssh/sftp-server
"""
_PATIENCE_SECONDS, _ANSWER_SECONDS = 180.0, 10.0
_POLL_SECONDS = 0.1


def keys(folder: Path, host_name: str) -> tuple[str, str]:
    """Make a stand-in's keys, unless they are there: of the server, and of the only client that it lets in.

    Returns:
        Their public lines.

    Raises:
        DeviceError: OpenSSH's client is not installed.
    """
    return _key(folder / HOST_KEY, host_name), _key(folder / CLIENT_KEY, "edgeprune")


def _key(path: Path, comment: str) -> str:
    if not path.is_file():
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        try:
            subprocess.run(words, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise DeviceError("ssh-keygen is not here", hint="apt install openssh-client") from None
        except subprocess.CalledProcessError as error:
            raise DeviceError(f"no key can be made at {path}", detail=error.stderr) from error
    return path.with_name(path.name + ".pub").read_text().strip()


def server_rules(users: str) -> str:
    """Lines of its `sshd_config`: who is let in (names with spaces between them), and that only with the key."""
    return _SERVER_RULES.format(users=users)


def introduce(folder: Path, port: int, user: str, host_key: str) -> Path:
    """Write what a client needs: `known_hosts`, and `device.json` with the way to the stand-in; returns the latter."""
    key_type, key = host_key.split()[:2]
    known = write_whole(folder / "known_hosts", f"[{HOST}]:{port} {key_type} {key}\n".encode())
    device = {"kind": "ssh", "host": HOST, "port": port, "user": user}
    device |= {"identity": str(folder / CLIENT_KEY), "known_hosts": str(known)}
    return write_whole(folder / DEVICE_FILE, json.dumps(device, indent=1).encode() + b"\n")


def free_port() -> int:
    """A port of the loopback that nobody uses at the moment."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def wait_for_server(folder: Path, port: int) -> None:
    """Return when the SSH server of a stand-in that was started answers.

    Raises:
        DeviceError: it ended or stays silent.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _greets(port):
        if not supervisor.is_running(folder / supervisor.RECORD_FILE):
            raise DeviceError(f"{folder.name} ended at once", detail=supervisor.tail(folder / supervisor.LOG_FILE))
        if time.monotonic() > deadline:
            supervisor.stop(folder / supervisor.RECORD_FILE)
            raise DeviceError(f"{folder.name} stays silent", detail=supervisor.tail(folder / supervisor.LOG_FILE))
        time.sleep(_POLL_SECONDS)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_SECONDS) as server:
            return server.recv(4) == b"SSH-"
    except OSError:
        return False


def own(path: Path, user: int) -> None:
    """Give a folder and what is in it to a user, where that is allowed and needed."""
    for one in (path, *path.rglob("*")):
        if one.lstat().st_uid != user:
            os.chown(one, user, user, follow_symlinks=False)
