"""`virtual-phone`: an emulated Android phone behind the real `adb`, without a phone, a cable or a network.

Its adb server is its own, on a port and with a key of its own: the user's server and keys are left alone. Start with
`up`; `adb_daemon` is the phone's side, `android_state` what it says of heat and battery, `order` makes it misbehave.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeprune.emulation import static_emulator
from edgeprune.errors import DeviceError
from edgeprune.standins import namespace, ssh_keys, supervisor
from edgeprune.standins.adb_daemon import CONTROL, READY, Settings
from edgeprune.standins.android_root import android_root
from edgeprune.standins.android_state import AndroidState
from edgeprune.storage import write_whole

NAME = "virtual-phone"
STATE_FOLDER = "state"
SHELL_USER = 2000
"""Android's user `shell`, whose rights adb gives."""
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TAIL = 2000


def up(
    folder: Path,
    say: Callable[[str], None],
    *,
    disk_bytes: int = 2 << 30,
    model: str = "Stand-in",
    adb: str = "adb",
    bound_to: int | None = None,
) -> Path:
    """Start it, and connect its adb server.

    Args:
        folder: What is its own: its key, its adb server's files, what it says of itself, its log.
        say: Told what takes long.
        disk_bytes: How much its /data takes, which lies in memory.
        model: What it is called.
        adb: The adb program.
        bound_to: Read end of a pipe that it lives as long as.

    Returns:
        `device.json`: how it is reached.

    Raises:
        DeviceError: this machine cannot run it; the detail is what its programs said.
    """
    program = shutil.which(adb)
    if program is None:
        raise DeviceError(f"{NAME}: the program {adb} is not here", hint="apt install adb")
    for name in (READY, CONTROL):
        (folder / name).unlink(missing_ok=True)
    key = _key(folder, program)
    state = AndroidState(folder / STATE_FOLDER)
    state.create()
    setting = namespace.Setting(
        str(android_root(say)),
        str(static_emulator("aarch64")),
        [],
        binds=[
            (str(state.folder / "sys"), "sys"),
            (str(state.folder / "services"), "vendor/services"),
            (str(state.boot_id), "proc/sys/kernel/random/boot_id"),
        ],
        scratch=[("data", disk_bytes)],
        user=SHELL_USER,
    )
    port = ssh_keys.free_port()
    server = [program, "-P", str(port), "nodaemon", "server"]
    public = key.with_suffix(".pub").read_text().splitlines()
    words = Settings(vars(setting), public, model, server, own_environment(folder)).words(folder)
    (folder / supervisor.LOG_FILE).write_text("")
    supervisor.start(folder / supervisor.RECORD_FILE, folder / supervisor.LOG_FILE, words, bound_to=bound_to)
    serial = f"{ssh_keys.HOST}:{_wait_until_ready(folder)}"
    for client in (["connect", serial], ["-s", serial, "wait-for-device"]):
        _adb([program, "-P", str(port), *client], folder)
    device: dict[str, Any] = {"kind": "adb", "adb": program, "server_port": port, "serial": serial}
    device["environment"] = own_environment(folder)
    return write_whole(folder / ssh_keys.DEVICE_FILE, json.dumps(device, indent=1).encode() + b"\n")


def end_server(folder: Path) -> None:
    """End the adb server of the phone in that folder: not its own any more where a client has started it anew."""
    with contextlib.suppress(OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        device = json.loads((folder / ssh_keys.DEVICE_FILE).read_text())
        subprocess.run(
            [device["adb"], "-P", str(device["server_port"]), "kill-server"],
            env=_environment(folder), capture_output=True, timeout=_PATIENCE_SECONDS, check=False,
        )  # fmt: skip


def order(folder: Path, **words: Any) -> None:
    """Have the phone in that folder do something, such as `do="drop"`: `adb_daemon.Phone.obey` lists what.

    Raises:
        DeviceError: it does not run, or does not know that.
    """
    place = os.open(folder, os.O_DIRECTORY | os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_PATIENCE_SECONDS)
            control.connect(f"/proc/self/fd/{place}/{CONTROL}")
            control.sendall(json.dumps(words).encode() + b"\n")
            answer = json.loads(control.makefile().readline() or '{"error": "it ended"}')
    except OSError as error:
        raise DeviceError(f"{NAME} does not run: {error.strerror}", hint=f"edgeprune devices up {NAME}") from error
    finally:
        os.close(place)
    if "error" in answer:
        raise DeviceError(f"{NAME}: {answer['error']}")


def reboot(folder: Path) -> None:
    """Start the phone in that folder anew: its programs end, its files stay, the kernel's boot is another."""
    AndroidState(folder / STATE_FOLDER).new_boot()
    order(folder, do="kill")


def own_environment(folder: Path) -> dict[str, str]:
    """What the phone's adb server is started with: its own key and log, no look for Android's emulators here."""
    own = {"HOME": str(folder), "TMPDIR": str(folder), "ADB_VENDOR_KEYS": str(_key_file(folder))}
    return {**own, "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "ADB_MDNS": "0"}


def _key(folder: Path, adb: str) -> Path:
    key = _key_file(folder)
    if not key.is_file():
        key.parent.mkdir(mode=0o700, exist_ok=True)
        _adb([adb, "keygen", str(key)], folder)
    return key


def _key_file(folder: Path) -> Path:
    return folder / ".android" / "adbkey"


def _wait_until_ready(folder: Path) -> int:
    """The port of its daemon, once that and its adb server listen."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    log = folder / supervisor.LOG_FILE
    while True:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((folder / READY).read_text())["port"])  # half a line is no JSON
        if not supervisor.is_running(folder / supervisor.RECORD_FILE):
            raise DeviceError(f"{folder.name} ended at once", detail=supervisor.tail(log))
        if time.monotonic() > deadline:
            supervisor.stop(folder / supervisor.RECORD_FILE)
            raise DeviceError(f"{folder.name} stays silent", detail=supervisor.tail(log))
        time.sleep(_POLL_SECONDS)


def _adb(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(
            command, env=_environment(folder), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_PATIENCE_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        told = (error.stdout + error.stderr).decode(errors="replace")
        raise DeviceError(f"{NAME}: adb {command[-1]} failed", detail=told[-_TAIL:]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{NAME}: adb {command[-1]} failed: {error}") from error


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, **own_environment(folder)}
