"""What tests of transports share: each way to a device, and a real ssh server whose link can be broken."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeprune.transport import RemoteTransport, Transport, connect
from edgeprune.transport.link import Link
from edgeprune.transport.ssh import SshLink
from tests.contract.agent_of import SHELLS, AgentOf, words_of
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd, require_sshd
from tests.processes import left_after


@dataclass(frozen=True)
class Way:
    """A way to a device, as the contract's tests need it.

    Attributes:
        connect: A new transport, as another run or another laptop would make it.
        look: What a program prints there, without the transport that is tested.
        machine: What its kernel calls its processor.
        has_python: Whether Python is there.
    """

    connect: Callable[[], Transport]
    look: Callable[[Sequence[str]], bytes]
    machine: str
    has_python: bool = True


def local_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """This machine, with a cache of the tests' own."""

    def look(arguments: Sequence[str]) -> bytes:
        return subprocess.run(arguments, check=True, capture_output=True).stdout

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_CACHE", str(request.getfixturevalue("tmp_path_factory").mktemp("cache")))
        yield Way(lambda: connect("local"), look, os.uname().machine)


def ssh_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """This machine behind a real ssh server."""
    yield from way_over(request.getfixturevalue("lasting_sshd").link, os.uname().machine)


def pi_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """An emulated Raspberry Pi behind its own ssh server."""
    pi = request.getfixturevalue("virtual_pi")
    yield from way_over(
        lambda: SshLink("virtual-pi", pi.host, pi.user, pi.port, Path(pi.identity), Path(pi.known_hosts)), "aarch64"
    )


def phone_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """An emulated phone behind its own adb server."""
    yield from way_over(request.getfixturevalue("virtual_phone").link, "aarch64", has_python=False)


def way_over(link: Callable[[], Link], machine: str, has_python: bool = True) -> Iterator[Way]:
    """A device behind links of that kind."""
    beside = link()

    def look(arguments: Sequence[str]) -> bytes:
        done = beside.call(arguments)
        assert done.status == 0, done.stderr
        return done.stdout

    yield Way(lambda: RemoteTransport(link()), look, machine, has_python)
    beside.close()


WAYS = {"local": local_way, "ssh": ssh_way, "virtual-pi": pi_way, "virtual-phone": phone_way}


@pytest.fixture(scope="module", params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each way to a device in turn."""
    yield from WAYS[request.param](request)


@pytest.fixture(scope="module")
def kept(way: Way) -> Iterator[Transport]:
    """One transport for all tests of a file: under emulation a greeting and a farewell take many seconds."""
    one = way.connect()
    yield one
    one.close()


@pytest.fixture
def transport(kept: Transport) -> Transport:
    """A transport to each device in turn, which is ours, whatever the test before did to it."""
    assert kept.acquire()
    return kept


@pytest.fixture(params=sorted(SHELLS))
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentOf]:
    """The agent under each shell in turn; whatever it starts has to be gone with it."""
    one = AgentOf(words_of(request.param), tmp_path / "device's $(folder)")
    yield one
    if one.folder.exists():
        one.ask("clean", "all")
    assert left_after(20, one.processes()) == []


@pytest.fixture(scope="session")
def lasting_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd]:
    """An ssh server for all tests that leave it as it is."""
    yield from served(tmp_path_factory.mktemp("sshd"))


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[LoopbackSshd]:
    """An ssh server of the test's own."""
    (tmp_path / "sshd").mkdir()
    yield from served(tmp_path / "sshd")


def served(folder: Path) -> Iterator[LoopbackSshd]:
    """An ssh server while it is needed."""
    require_sshd()
    server = LoopbackSshd(folder)
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
