"""Keys of a stand-in's own: its host key, the one that lets its user in, and the file by which clients know it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from edgeprune.errors import DeviceError
from edgeprune.storage import write_whole

HOST = "127.0.0.1"
DEVICE_FILE = "device.json"
_PATIENCE_SECONDS = 10.0


def make_key(path: Path, comment: str) -> str:
    """Make a key pair, unless it is there.

    Returns:
        The public key's line.

    Raises:
        DeviceError: OpenSSH's client is not installed.
    """
    if not path.is_file():
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        try:
            subprocess.run(words, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise DeviceError("ssh-keygen is not here", hint="apt install openssh-client") from None
        except subprocess.CalledProcessError as error:
            raise DeviceError(f"no key can be made at {path}", detail=error.stderr) from error
    return path.with_name(path.name + ".pub").read_text().strip()


def introduce(folder: Path, port: int, user: str, host_key: str) -> Path:
    """Write what a client needs: `known_hosts`, and `device.json` with the way to the stand-in; returns the latter."""
    key_type, key = host_key.split()[:2]
    known = write_whole(folder / "known_hosts", f"[{HOST}]:{port} {key_type} {key}\n".encode())
    device = {"kind": "ssh", "host": HOST, "port": port, "user": user}
    device |= {"identity": str(folder / "client_key"), "known_hosts": str(known)}
    return write_whole(folder / DEVICE_FILE, json.dumps(device, indent=1).encode() + b"\n")


def free_port() -> int:
    """A port of the loopback that nobody uses at the moment."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def greets(port: int) -> bool:
    """Whether an SSH server answers there."""
    try:
        with socket.create_connection((HOST, port), timeout=_PATIENCE_SECONDS) as server:
            server.settimeout(_PATIENCE_SECONDS)
            return server.recv(4) == b"SSH-"
    except OSError:
        return False


def own(path: Path, user: int) -> None:
    """Give a folder and what is in it to a user, where that is allowed and needed."""
    for one in (path, *path.rglob("*")):
        if one.lstat().st_uid != user:
            os.chown(one, user, user, follow_symlinks=False)
