"""A device that two laptops want, over real ssh: a lease is kept, lost, taken over and given back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgeprune.errors import LeaseLostError, LinkLostError, StorageError
from edgeprune.transport import RemoteTransport
from edgeprune.transport.lease import Lease
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd
from tests.processes import soon

PATIENCE = 120.0


def check_when_it_answers(lease: Lease) -> None:
    """Check a lease over a link that may only be coming back."""
    for _ in range(10):
        with contextlib.suppress(LinkLostError):
            return lease.check()
    raise AssertionError("the link did not come back")


def lease_over(transport: RemoteTransport, seconds: int) -> Lease:
    return Lease("board", transport._ask_lease, seconds)


@pytest.fixture
def two_laptops(sshd: LoopbackSshd, proxy: FaultyProxy) -> Iterator[tuple[RemoteTransport, RemoteTransport]]:
    """The first one's link can be broken."""
    known = sshd.folder / "both"
    known.write_text(
        sshd.known_hosts.read_text() + sshd.known_hosts.read_text().replace(f":{proxy.port} ", f":{sshd.port} ")
    )
    sshd.known_hosts.write_text(known.read_text())
    first, second = RemoteTransport(sshd.link(proxy.port)), RemoteTransport(sshd.link())
    yield first, second
    proxy.mend()
    first.close()
    second.close()


def test_a_lease_is_kept_for_longer_than_it_lasts(two_laptops: tuple[RemoteTransport, RemoteTransport]) -> None:
    first, second = (lease_over(laptop, 10) for laptop in two_laptops)
    assert first.take(0.0)
    time.sleep(12.0)
    assert not second.take(0.0)
    assert "for another" in second.holder
    first.check()
    first.drop()
    assert second.take(0.0)
    assert second.taken_over_from == ""
    second.drop()


def test_the_lease_of_a_laptop_that_vanished_runs_out(
    two_laptops: tuple[RemoteTransport, RemoteTransport], proxy: FaultyProxy
) -> None:
    first, second = (lease_over(laptop, 3) for laptop in two_laptops)
    assert first.take(0.0)
    proxy.cut()
    assert second.take(PATIENCE)
    assert second.taken_over_from == first._owner
    proxy.mend()
    with pytest.raises(LeaseLostError, match="has taken the device"):
        check_when_it_answers(first)
    assert not first.held
    first.drop()
    second.check()
    second.drop()


def test_a_lease_that_was_lost_and_taken_again_is_renewed_again() -> None:
    asked: list[str] = []
    answers = {"take": True, "renew": False, "drop": False}

    def ask(words: list[str]) -> dict[str, Any]:
        asked.append(words[0])
        return {"mine": answers[words[0]], "owner": "another", "left_s": 3}

    lease = Lease("board", ask, 1)
    assert lease.take(0.0)
    assert soon(lambda: not lease.held)
    time.sleep(1.0)  # what renewed it has ended
    answers["renew"] = True
    assert lease.take(0.0)
    before = asked.count("renew")
    assert soon(lambda: asked.count("renew") > before)
    lease.drop()


def test_a_lease_that_ran_out_and_that_nobody_took_is_still_ours(
    two_laptops: tuple[RemoteTransport, RemoteTransport], proxy: FaultyProxy
) -> None:
    first, second = (lease_over(laptop, 2) for laptop in two_laptops)
    assert first.take(0.0)
    proxy.cut()
    mending = threading.Timer(4.0, proxy.mend)
    mending.start()
    mending.join()
    check_when_it_answers(first)
    assert first.held
    first.drop()
    assert second.take(0.0)
    second.drop()


def test_a_laptop_without_a_file_to_open_renews_once_it_has_one(sshd: LoopbackSshd) -> None:
    board, faults = RemoteTransport(sshd.link()), [OSError(24, "Too many open files"), StorageError("no room")]

    def ask(words: list[str]) -> dict[str, Any]:
        if words[0] == "renew" and faults:
            raise faults.pop()
        return board._ask_lease(words)

    lease = Lease("board", ask, 6)
    assert lease.take(0.0)
    time.sleep(9.0)
    assert not faults
    other = lease_over(board, 6)
    assert not other.take(0.0)
    lease.drop()
    board.close()


def test_cleaning_waits_for_a_renewal_that_is_under_way(sshd: LoopbackSshd) -> None:
    """It would make the lease, and with it the folder, anew."""
    board, under_way, go_on = RemoteTransport(sshd.link()), threading.Event(), threading.Event()
    ask = board._ask_lease

    def slowly(words: list[str]) -> dict[str, Any]:
        if words[0] == "renew":
            under_way.set()
            assert go_on.wait(PATIENCE)
        return ask(words)

    board._lease = Lease("board", slowly, 3)
    assert board.acquire()
    assert under_way.wait(PATIENCE)
    threading.Timer(1.0, go_on.set).start()
    board.clean()
    assert go_on.is_set()
    assert list(sshd.cache.iterdir()) == []
    board.close()
