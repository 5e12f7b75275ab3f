"""A run raises the clock of a board where it may, and puts back what was there."""

from __future__ import annotations

from pathlib import Path

from edgeprune.transport.remote import RemoteTransport
from edgeprune.transport.ssh import SshLink
from tests.standins import Reached


def test_the_governor_is_raised_while_the_board_is_held_and_put_back(virtual_pi: Reached) -> None:
    link = SshLink(
        "virtual-pi", virtual_pi.host, virtual_pi.user, virtual_pi.port,
        Path(virtual_pi.identity), Path(virtual_pi.known_hosts),
    )  # fmt: skip
    governors = sorted((virtual_pi.folder / "sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor"))
    before = [file.read_text() for file in governors]
    way = RemoteTransport(link)
    assert way.acquire()
    try:
        assert way.raise_clock() == [], "a board lets nobody but root"
        for file in governors:
            file.chmod(0o666)
        assert len(way.raise_clock()) == len(governors) > 0
        assert {file.read_text().strip() for file in governors} == {"performance"}
    finally:
        way.close()
        for file in governors:
            file.chmod(0o644)
    assert [file.read_text() for file in governors] == before
