"""Stand-ins for boards that are not here, real where it counts: reached, used and ended like any device.

    virtual-pi       an aarch64 OpenSSH server with its system, emulated program by program
    virtual-pi-vm    the same system as a whole emulated machine: true memory, reboots, slower
    virtual-phone    an Android-like phone behind adb, emulated in the same way

A matrix may name one once `edgeprune devices up NAME` has started it. Nothing is ever timed on them. Start with `up`;
a new stand-in is one new file and one line in `_KINDS`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeprune.errors import UnknownNameError
from edgeprune.resources import cache_folder
from edgeprune.standins import machine, phone, pi, ssh_keys, supervisor

__all__ = ["device", "down", "folder_of", "names", "running", "up"]

_KINDS: dict[str, Callable[..., Path]] = {
    phone.NAME: phone.up,
    "virtual-pi": pi.up,
    "virtual-pi-vm": machine.up,
}
_BEFORE_DOWN: dict[str, Callable[[Path], None]] = {phone.NAME: phone.end_server}


def names() -> list[str]:
    """Names of the stand-ins."""
    return list(_KINDS)


def folder_of(name: str) -> Path:
    """The folder of the one stand-in of this name that commands mean: its `device.json` tells how it is reached.

    Raises:
        UnknownNameError: there is no such stand-in.
    """
    if name not in _KINDS:
        raise UnknownNameError("stand-in", name, _KINDS)
    return cache_folder() / "standins" / name


def up(
    name: str,
    say: Callable[[str], None] = print,
    *,
    folder: Path | None = None,
    bound_to: int | None = None,
    **options: Any,
) -> Path:
    """Start a stand-in in the background, if it does not run.

    Args:
        name: One of `names()`.
        say: Told what takes long.
        folder: What it keeps, for several of the same name; None: `folder_of(name)`.
        bound_to: Read end of a pipe; it ends when nobody holds the other end any more. None: it runs until `down`.
        options: What else its kind takes, such as `disk_bytes` of virtual-pi.

    Returns:
        `device.json` in that folder.

    Raises:
        UnknownNameError: there is no such stand-in.
        DeviceError: it cannot run on this machine.
    """
    own = folder or folder_of(name)
    with _locked(own):
        answer = device(own)
        if answer is not None:
            return own / ssh_keys.DEVICE_FILE
        _stop(name, own)
        return _KINDS[name](own, say, bound_to=bound_to, **options)


def down(name: str, *, folder: Path | None = None) -> None:
    """End a stand-in with all its processes and mounts; its files stay. Nothing happens where it does not run.

    Raises:
        UnknownNameError: there is no such stand-in.
        DeviceError: it does not end.
    """
    own = folder or folder_of(name)
    if own.is_dir():
        with _locked(own):
            _stop(name, own)


def device(folder: Path) -> dict[str, Any] | None:
    """How the stand-in in that folder is reached, as its `device.json` says it; None where it does not run."""
    if not supervisor.is_running(folder / supervisor.RECORD_FILE):
        return None
    try:
        told: dict[str, Any] = json.loads((folder / ssh_keys.DEVICE_FILE).read_text())
    except (OSError, ValueError):
        return None
    return told


@contextlib.contextmanager
def running(name: str, folder: Path, say: Callable[[str], None] = print, **options: Any) -> Iterator[Path]:
    """A stand-in for as long as a block, or this process, whichever is shorter; yields its `device.json`.

    Raises:
        UnknownNameError: there is no such stand-in.
        DeviceError: it cannot run on this machine.
    """
    ours, theirs = os.pipe()
    try:
        yield up(name, say, folder=folder, bound_to=ours, **options)
    finally:
        os.close(ours)
        os.close(theirs)
        down(name, folder=folder)


def _stop(name: str, folder: Path) -> None:
    """End what runs of the stand-in in that folder, or is left of one that ended by itself."""
    if name in _BEFORE_DOWN:
        _BEFORE_DOWN[name](folder)
    supervisor.stop(folder / supervisor.RECORD_FILE)
    (folder / ssh_keys.DEVICE_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time starts or ends a stand-in."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
