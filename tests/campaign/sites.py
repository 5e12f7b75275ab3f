"""The devices of a campaign, and what can be done to them from outside. Start with `Site`.

Nothing here asks edgeprune for anything: links are cut, processes killed and files written behind its back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

from edgeprune import standins
from edgeprune.standins import phone
from tests.contract.faulty_proxy import FaultyProxy
from tests.processes import command_words, running

_DISK_BYTES = 96 << 20


class Site(ABC):
    """A stand-in that this process started, with the link to it."""

    kind: str
    inside: str
    """Where edgeprune's private folder lies on it."""

    def __init__(self) -> None:
        self.name = self.kind
        self.folder = standins.folder_of(self.name)
        self._bound_to, self._bond = os.pipe()  # a stand-in lives no longer than this process

    def processes(self) -> list[psutil.Process]:
        """What runs on it, its own servers included."""
        try:
            top = psutil.Process(json.loads((self.folder / "process.json").read_text())["pid"])
            return list(top.children(recursive=True))
        except (OSError, ValueError, psutil.Error):
            return []

    def private_folder(self) -> Path | None:
        """Edgeprune's folder on it, seen from here; None where there is none yet."""
        for process in self.processes():
            place = Path(f"/proc/{process.pid}/root/{self.inside}")
            with contextlib.suppress(OSError):
                if place.is_dir():
                    return place
        return None

    def workers(self) -> list[psutil.Process]:
        """The programs that edgeprune runs on it."""
        # not the shells that are about to become one or keep one; an emulator may stand before its name
        return [process for process in self.processes() if "serve" in command_words(process)[1:3]]

    def leftovers(self) -> list[str]:
        """What edgeprune has left on it, but for the agent's own files."""
        left = [" ".join(command_words(process)) for process in self.processes() if _is_edgeprune_s(process)]
        place = self.private_folder()
        for folder in ("pushed", "launches"):
            with contextlib.suppress(OSError):
                left += [f"{folder}/{entry}" for entry in os.listdir(place / folder if place else "/nowhere")]
        return left

    @abstractmethod
    def up(self) -> None:
        """Start it."""

    @abstractmethod
    def down(self) -> None:
        """End it, with all that runs on it."""

    @abstractmethod
    def cut(self, seconds: float) -> None:
        """Let nothing through for so long."""

    @abstractmethod
    def reset(self) -> None:
        """Break the connections that there are."""

    @abstractmethod
    def restart(self) -> None:
        """Start it anew; nothing that ran goes on."""

    @abstractmethod
    def fill_disk(self, seconds: float) -> bool:
        """Leave no space on it for so long; whether there was any to fill."""

    @abstractmethod
    def server(self) -> list[psutil.Process]:
        """The processes by which this machine reaches it."""


class Pi(Site):
    """The emulated Pi behind a proxy that cuts and resets."""

    kind, inside = "virtual-pi", "home/pi/.cache/edgeprune-device"

    def __init__(self) -> None:
        super().__init__()
        self._proxy: FaultyProxy | None = None

    def up(self) -> None:
        self.restart()

    def down(self) -> None:
        standins.down(self.name)
        if self._proxy is not None:
            self._proxy.close()

    def cut(self, seconds: float) -> None:
        assert self._proxy is not None
        self._proxy.cut()
        time.sleep(seconds)
        self._proxy.mend()

    def reset(self) -> None:
        assert self._proxy is not None
        self._proxy.reset()

    def restart(self) -> None:
        standins.down(self.name)
        standins.up(self.name, _quiet, bound_to=self._bound_to, disk_bytes=_DISK_BYTES)
        self._route()

    def fill_disk(self, seconds: float) -> bool:
        place = self.private_folder()
        if place is None:
            return False
        filler = place.parent / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(seconds)
        with contextlib.suppress(OSError):
            filler.unlink()
        return True

    def server(self) -> list[psutil.Process]:
        """Its servers of single connections: children of the one that listens."""
        sshd = {process.pid: process for process in self.processes() if "sshd" in " ".join(command_words(process)[:3])}
        found = []
        for process in sshd.values():
            with contextlib.suppress(psutil.Error):
                if process.ppid() in sshd:
                    found.append(process)
        return found

    def _route(self) -> None:
        """Let the way to it lead through the proxy, whose port stays the same over restarts."""
        path = self.folder / "device.json"
        device = json.loads(path.read_text())
        if self._proxy is None:
            self._proxy = FaultyProxy(device["port"])
        self._proxy.retarget(device["port"])
        known = Path(device["known_hosts"])
        known.write_text(known.read_text().replace(f":{device['port']} ", f":{self._proxy.port} "))
        path.write_text(json.dumps(device | {"port": self._proxy.port}))


class Phone(Site):
    """The emulated phone, whose daemon misbehaves when told to."""

    kind, inside = "virtual-phone", "data/local/tmp/edgeprune"

    def up(self) -> None:
        standins.down(self.name)
        standins.up(self.name, _quiet, bound_to=self._bound_to, disk_bytes=_DISK_BYTES)

    def down(self) -> None:
        standins.down(self.name)

    def cut(self, seconds: float) -> None:
        phone.order(self.folder, do="silent", silent=True)
        time.sleep(seconds)
        phone.order(self.folder, do="silent", silent=False)

    def reset(self) -> None:
        phone.order(self.folder, do="drop")

    def restart(self) -> None:
        phone.reboot(self.folder)

    def fill_disk(self, seconds: float) -> bool:
        phone.order(self.folder, do="disk", free_bytes=1000)
        time.sleep(seconds)
        phone.order(self.folder, do="disk", free_bytes=None)
        return True

    def server(self) -> list[psutil.Process]:
        """The laptop's adb server, which whatever client comes next starts anew."""
        port = str(json.loads((self.folder / "device.json").read_text())["server_port"])
        return running(lambda one: one.name() == "adb" and _serves(one, port))


SITES: dict[str, type[Site]] = {site.kind: site for site in (Pi, Phone)}


def kill(process: psutil.Process, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(how)


def remove(place: Path) -> None:
    """Remove a folder that others may be writing to."""
    shutil.rmtree(place, ignore_errors=True)


def _serves(process: psutil.Process, port: str) -> bool:
    said = command_words(process)
    return "server" in said and bool({port, f"tcp:{port}"} & set(said))


def _is_edgeprune_s(process: psutil.Process) -> bool:
    said = " ".join(command_words(process))
    return "agent.sh" in said or ("serve" in said and "--threads" in said)


def _quiet(_: str) -> None: ...
