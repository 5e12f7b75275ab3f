"""What tests of transports share: a real ssh server on loopback, and ways to it that can be broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.transport.ssh import SshLink
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd, require_sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[LoopbackSshd]:
    """An ssh server of the test's own."""
    require_sshd()
    (tmp_path / "sshd").mkdir()
    server = LoopbackSshd(tmp_path / "sshd")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def link(sshd: LoopbackSshd) -> Iterator[SshLink]:
    """The straight way to it."""
    way = sshd.link()
    yield way
    way.close()


@pytest.fixture
def proxy(sshd: LoopbackSshd) -> Iterator[FaultyProxy]:
    """A detour to it, `sshd.link(proxy.port)`, that can be cut and reset."""
    with FaultyProxy(sshd.port) as between:
        sshd.known_hosts.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port} ", f":{between.port} "))
        yield between
