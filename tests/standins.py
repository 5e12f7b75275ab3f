"""Stand-ins that tests share: each runs for as long as the process that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeprune import standins
from edgeprune.errors import DeviceError
from edgeprune.standins import phone
from edgeprune.transport.adb import AdbLink


@dataclass(frozen=True)
class Reached:
    """A stand-in behind ssh, reached by the client alone: without anything of edgeprune's that tests may be about.

    Attributes:
        folder: What is the stand-in's own.
        host, port, user, identity, known_hosts: What `device.json` says.
    """

    folder: Path
    host: str
    port: int
    user: str
    identity: str
    known_hosts: str

    @classmethod
    def by(cls, device: Path) -> Reached:
        told = json.loads(device.read_text())
        assert told.pop("kind") == "ssh"
        return cls(device.parent, **told)

    def options(self) -> list[str]:
        """Options of ssh and sftp that lead there; the user's own configuration is not read."""
        return [
            "-F", "none", "-i", self.identity, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes",
            "-o", f"Port={self.port}",
        ]  # fmt: skip

    def run(
        self, command: str, *, user: str | None = None, stdin: bytes = b"", timeout: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a line of shell there."""
        words = ["ssh", *self.options(), f"{user or self.user}@{self.host}", command]
        return subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, check=False)


@dataclass(frozen=True)
class Plugged:
    """A stand-in behind adb, reached by the program alone.

    Attributes:
        folder: What is the stand-in's own.
        adb: The program.
        serial, server_port, environment: What `device.json` says.
    """

    folder: Path
    adb: str
    serial: str
    server_port: int
    environment: dict[str, str]

    @classmethod
    def by(cls, device: Path) -> Plugged:
        told = json.loads(device.read_text())
        assert told.pop("kind") == "adb"
        return cls(device.parent, **told)

    def run(
        self, *words: str, stdin: bytes = b"", adb: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program with these words."""
        command = [adb or self.adb, "-P", str(self.server_port), "-s", self.serial, *words]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)

    def shell(self, line: str) -> bytes:
        """What a line of shell prints, that must not fail."""
        done = self.run("shell", "-T", line)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def link(self, name: str = "virtual-phone") -> AdbLink:
        """Edgeprune's own way to it."""
        return AdbLink(name, self.serial, self.server_port, self.adb, self.environment)

    def order(self, **words: Any) -> None:
        """Have it misbehave."""
        phone.order(self.folder, **words)


def start(name: str, folder: Path, **options: int) -> Iterator[Reached]:
    """Run a stand-in behind ssh; where it cannot run, tests are skipped, and fail in CI."""
    for device in _device(name, folder, **options):
        yield Reached.by(device)


def start_phone(folder: Path, **options: Any) -> Iterator[Plugged]:
    """Run a stand-in behind adb; where it cannot run, tests are skipped, and fail in CI."""
    for device in _device("virtual-phone", folder, **options):
        yield Plugged.by(device)


def _device(name: str, folder: Path, **options: Any) -> Iterator[Path]:
    try:
        with standins.running(name, folder, **options) as device:
            yield device
    except DeviceError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.message}: {error.detail or ''} {error.hint or ''}")


@pytest.fixture(scope="session")
def virtual_pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    """An emulated Raspberry Pi: aarch64 programs and server, this machine's kernel."""
    yield from start("virtual-pi", tmp_path_factory.mktemp("virtual-pi"))


@pytest.fixture(scope="session")
def virtual_vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    """The same as a whole emulated machine: kernel and memory of its own."""
    yield from start("virtual-pi-vm", tmp_path_factory.mktemp("virtual-pi-vm"))


@pytest.fixture(scope="session")
def virtual_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugged]:
    """An emulated phone behind the real adb: aarch64 programs, this machine's kernel, 64 MiB of /data."""
    yield from start_phone(tmp_path_factory.mktemp("virtual-phone"), disk_bytes=64 << 20)
