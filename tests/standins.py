"""Stand-ins that tests share: each runs for as long as the process that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeprune import standins
from edgeprune.errors import DeviceError


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

    def run(self, command: str, *, user: str | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a line of shell there."""
        words = ["ssh", *self.options(), f"{user or self.user}@{self.host}", command]
        return subprocess.run(words, input=stdin, capture_output=True, timeout=120, check=False)


def start(name: str, folder: Path, **options: int) -> Iterator[Reached]:
    """Run a stand-in; where it cannot run, tests are skipped, and fail in CI."""
    try:
        with standins.running(name, folder, **options) as device:
            yield Reached.by(device)
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
