"""The faults: each a function of device, run and dice, which says what it did, or "" if it found nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import psutil

from edgeprune.errors import DeviceError
from edgeprune.transport import connect
from tests.campaign.sites import Site, kill, remove
from tests.processes import command_words

_OPPORTUNITY_SECONDS = 60.0  # a worker is there for seconds of each cell's time


@dataclass(frozen=True)
class Fault:
    """One fault that was done: what, to which device, when (seconds since the campaign's start), in which words."""

    kind: str
    device: str
    at_s: float
    detail: str


Run = subprocess.Popen[bytes]
Doing = Callable[[Site, Run, Random], str]


def link_cut(site: Site, run: Run, dice: Random) -> str:
    seconds = dice.uniform(1, 8)
    site.cut(seconds)
    return f"{seconds:.1f} s"


def link_reset(site: Site, run: Run, dice: Random) -> str:
    site.reset()
    return "all connections"


def client_killed(site: Site, run: Run, dice: Random) -> str:
    """One of the run's own ssh or adb programs."""
    with contextlib.suppress(psutil.Error):
        wanted = "ssh" if "pi" in site.name else "adb"
        clients = [one for one in psutil.Process(run.pid).children(recursive=True) if one.name() == wanted]
        if clients:
            kill(dice.choice(clients))
            return wanted
    return ""


def server_killed(site: Site, run: Run, dice: Random) -> str:
    """The board's end of a connection, or the laptop's adb server."""
    servers = site.server()
    if not servers:
        return ""
    victim = dice.choice(servers)
    said = " ".join(word.rpartition("/")[2] for word in command_words(victim))[:60]
    kill(victim)
    return said


def worker_killed(site: Site, run: Run, dice: Random) -> str:
    return _to_worker(site, run, signal.SIGKILL)


def worker_hangs(site: Site, run: Run, dice: Random) -> str:
    return _to_worker(site, run, signal.SIGSTOP)


def disk_full(site: Site, run: Run, dice: Random) -> str:
    seconds = dice.uniform(2, 5)
    return f"{seconds:.1f} s" if site.fill_disk(seconds) else ""


def garbage_line(site: Site, run: Run, dice: Random) -> str:
    """A line that is no answer, among those that the worker has written."""
    deadline = time.monotonic() + _OPPORTUNITY_SECONDS
    while run.poll() is None and time.monotonic() < deadline:
        place = site.private_folder()
        for spool in place.glob("launches/*/spool") if place else ():
            with contextlib.suppress(OSError), spool.open("ab") as file:
                file.write(b'{"samples_ns":[12,\x00garbage\n')
                return "in the spool"
        time.sleep(0.05)
    return ""


def files_removed(site: Site, run: Run, dice: Random) -> str:
    place = site.private_folder()
    if place is None or not (place / "pushed").is_dir():
        return ""
    remove(place / "pushed")
    return "all that was pushed"


def device_restarts(site: Site, run: Run, dice: Random) -> str:
    site.restart()
    return "all its programs ended"


def lease_stolen(site: Site, run: Run, dice: Random) -> str:
    """Another laptop finds no lease, takes the device, and cleans it for its own work."""
    place = site.private_folder()
    if place is None:
        return ""
    remove(place / "leases")
    other = connect(site.name)
    try:
        if not other.acquire(wait_seconds=1.0):
            return ""
        time.sleep(dice.uniform(1, 3))
    except DeviceError:
        return ""
    finally:
        other.close()
    return "by this process"


def laptop_killed(site: Site, run: Run, dice: Random) -> str:
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    return "kill -9"


KINDS: dict[str, Doing] = {
    "link cut for seconds": link_cut,
    "connections reset": link_reset,
    "client killed": client_killed,
    "server killed": server_killed,
    "worker killed": worker_killed,
    "worker hangs": worker_hangs,
    "disk full": disk_full,
    "garbage line": garbage_line,
    "pushed files removed": files_removed,
    "device restarts": device_restarts,
    "lease stolen": lease_stolen,
    "laptop killed": laptop_killed,
}


def _to_worker(site: Site, run: Run, how: signal.Signals) -> str:
    deadline = time.monotonic() + _OPPORTUNITY_SECONDS
    while run.poll() is None and time.monotonic() < deadline:
        for worker in site.workers():
            kill(worker, how)
            return how.name
        time.sleep(0.02)
    return ""
