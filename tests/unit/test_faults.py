"""What a fault means for the work on a device. A device that fails on demand stands in for faults nobody can time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgeprune.errors import (
    DeviceError,
    GarbledAnswerError,
    LeaseLostError,
    LinkLostError,
    ParityError,
    RemoteError,
    TransportError,
)
from edgeprune.manifest import other_machine
from edgeprune.matrix.faults import Contact, DeviceGivenUpError, StoppedError, told
from edgeprune.matrix.fitness import wait_until_fit
from edgeprune.transport import LocalTransport

LINK = LinkLostError("board: no answer", hint="is it on?")


class Board(LocalTransport):
    """This machine, whose link and lease fail in the ways that it was given, one each time it is asked."""

    name = "board"

    def __init__(self, facts: list[dict[str, Any] | Exception], lease: list[Exception | None] | None = None) -> None:
        super().__init__()
        self._facts = facts
        self._lease = lease or []
        self.asked = 0

    def facts(self) -> dict[str, Any]:
        self.asked += 1
        fact = self._facts.pop(0) if len(self._facts) > 1 else self._facts[0]
        if isinstance(fact, Exception):
            raise fact
        return fact

    def check_lease(self) -> None:
        error = self._lease.pop(0) if self._lease else None
        if error:
            raise error


class Told:
    """A contact, and everything it said."""

    def __init__(self, board: Board, patience_s: float = 60.0) -> None:
        self.said: list[str] = []
        self.renewed: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self.board = board
        facts = {"machine": "armv7l", "boot_id": "one"}
        self.contact = Contact(board, facts, patience_s, self.stop, self.said.append, self.renewed.append)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.matrix.faults._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("edgeprune.matrix.faults._LONGEST_PAUSE_SECONDS", 0.01)


SAME = {"machine": "armv7l", "boot_id": "one"}
RESTARTED = {"machine": "armv7l", "boot_id": "two"}


def failing(*errors: Exception) -> Callable[[], str]:
    """Work that fails in these ways before it succeeds."""
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


def test_a_lost_link_is_waited_for_and_the_work_done_anew() -> None:
    told_of = Told(Board([LINK, LINK, SAME]))
    assert told_of.contact.carry_out(failing(LINK)) == "done"
    assert told_of.board.asked == 3
    assert told_of.contact.absences == 1
    assert "no contact" in told_of.said[0]
    assert "answers again" in told_of.said[1]


def test_a_restart_renews_the_facts() -> None:
    told_of = Told(Board([RESTARTED]))
    assert told_of.contact.carry_out(failing(LINK)) == "done"
    assert told_of.renewed == [RESTARTED]
    assert told_of.contact.boot_id == "two"
    assert "restarted" in told_of.said[-1]


def test_a_device_that_stays_away_is_given_up_with_the_reason() -> None:
    told_of = Told(Board([LINK]), patience_s=0.05)
    with pytest.raises(DeviceGivenUpError, match="no contact for") as caught:
        told_of.contact.carry_out(failing(LINK))
    assert "is it on?" in told(caught.value)
    assert "the same command goes on" in told(caught.value)


def test_what_a_launch_waited_for_its_link_is_part_of_the_patience() -> None:
    waited = LinkLostError("board: the link was lost", hint="is it on?")
    waited.away_s = 3000.0
    told_of = Told(Board([LINK]), patience_s=3000.0)
    with pytest.raises(DeviceGivenUpError, match=r"no contact for 30\d\d s"):
        told_of.contact.carry_out(failing(waited))
    assert "waiting up to 0 s" in told_of.said[0]
    assert told_of.board.asked == 1


@pytest.mark.parametrize(("memory", "same"), [(926_000, True), (900_000, True), (879_000, False), (1_900_000, False)])
def test_a_board_whose_kernel_keeps_a_little_more_is_the_same_board(memory: int, same: bool) -> None:
    before = {"machine": "armv7l", "boot_id": "one", "memory_bytes": 926_000}
    assert (other_machine(before, before | {"memory_bytes": memory}) == "") == same
    assert (other_machine(before | {"memory_bytes": memory}, before) == "") == same
    assert other_machine(before, before | {"memory_bytes": None}).startswith("memory_bytes 926000 / None")


def test_another_machine_at_the_same_address_is_not_measured_on() -> None:
    told_of = Told(Board([{"machine": "aarch64", "boot_id": "one"}]))
    with pytest.raises(DeviceGivenUpError, match="another machine"):
        told_of.contact.carry_out(failing(LINK))


def test_garbage_is_asked_for_once_more_and_then_fails() -> None:
    garbled = GarbledAnswerError("board: not an answer: 'x'")
    assert Told(Board([SAME])).contact.carry_out(failing(garbled)) == "done"
    with pytest.raises(GarbledAnswerError):
        Told(Board([SAME])).contact.carry_out(failing(garbled, garbled))


@pytest.mark.parametrize("error", [RemoteError("killed"), ParityError("unequal"), DeviceError("no")])
def test_what_fails_on_a_device_that_answers_is_not_tried_again(error: Exception) -> None:
    told_of = Told(Board([SAME]))
    with pytest.raises(type(error)):
        told_of.contact.carry_out(failing(error))
    assert told_of.board.asked == 0


def test_a_copy_that_failed_fails_the_cell_if_the_device_answers_and_the_device_if_it_refuses() -> None:
    full = TransportError("board: no room")
    with pytest.raises(TransportError, match="no room"):
        Told(Board([SAME])).contact.carry_out(failing(full))
    refused = TransportError("board: the host key has changed", hint="ssh-keygen -R board")
    with pytest.raises(DeviceGivenUpError, match="host key"):
        Told(Board([refused])).contact.carry_out(failing(full))
    # cut just then: it is the link after all
    assert Told(Board([LINK, SAME])).contact.carry_out(failing(full)) == "done"


def test_a_device_that_another_laptop_took_is_given_up() -> None:
    lost = LeaseLostError("board: taken by ann@laptop")
    with pytest.raises(DeviceGivenUpError, match="ann@laptop"):
        Told(Board([SAME], [lost])).contact.carry_out(failing())
    # what was measured while the lease was lost does not count
    with pytest.raises(DeviceGivenUpError, match="ann@laptop"):
        Told(Board([SAME], [None, lost])).contact.carry_out(failing())


def test_a_launch_that_takes_the_device_down_each_time_ends() -> None:
    boots: list[dict[str, Any] | Exception] = [{"machine": "armv7l", "boot_id": str(number)} for number in range(99)]
    with pytest.raises(DeviceError, match="restarted 5 times"):
        Told(Board(boots)).contact.carry_out(failing(*[LINK] * 99))
    with pytest.raises(DeviceError, match="contact was lost 20 times"):
        Told(Board([SAME])).contact.carry_out(failing(*[LINK] * 99))


def test_a_stop_ends_waiting_at_once_and_hides_what_it_broke() -> None:
    told_of = Told(Board([LINK]), patience_s=3600)
    threading.Timer(0.05, told_of.stop.set).start()
    with pytest.raises(StoppedError):
        told_of.contact.carry_out(failing(LINK))

    def broken_by_the_stop() -> None:
        told_of.stop.set()
        raise RemoteError("the connection ended")

    told_of.stop.clear()
    with pytest.raises(StoppedError):
        told_of.contact.carry_out(broken_by_the_stop)


def test_a_low_battery_and_a_hot_device_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.matrix.fitness._POLL_SECONDS", 0.001)
    low = SAME | {"temp_c": 40.0, "battery": {"percent": 12, "charging": False}}
    hot = SAME | {"temp_c": 60.0, "battery": {"percent": 50, "charging": False}}
    fit = SAME | {"temp_c": 41.0, "battery": {"percent": 50, "charging": False}}
    told_of, doing = Told(Board([low, hot, fit])), []
    wait_until_fit(told_of.contact, 40.0, doing.append)
    assert doing == ["the battery is at 12 % and not charging: plug it in", "cooling down, 60.0 °C"]


def test_a_battery_that_stays_low_gives_the_device_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.matrix.fitness._POLL_SECONDS", 0.001)
    monkeypatch.setattr("edgeprune.matrix.fitness._BATTERY_WAIT_SECONDS", 0.01)
    low = SAME | {"temp_c": None, "battery": {"percent": 12, "charging": False}}
    told_of = Told(Board([low]))
    told_of.contact.facts = low
    with pytest.raises(DeviceGivenUpError, match="12 % and not charging"):
        wait_until_fit(told_of.contact, None, lambda _: None)


def test_devices_work_at_the_same_time_and_one_error_of_the_run_stops_all() -> None:
    from edgeprune.matrix.side_by_side import Laptop, work_side_by_side

    met = threading.Barrier(2, timeout=10)
    stop, laptop, here = threading.Event(), Laptop(), []

    class Work:
        def __init__(self, name: str, body: Callable[[], None]) -> None:
            self.name, self.carry_out, self.aborted = name, body, False

        def abort(self) -> None:
            self.aborted = True

    def meet() -> None:
        met.wait()
        laptop.later(lambda: here.append(threading.current_thread()))

    work_side_by_side([Work("a", meet), Work("b", meet)], laptop, stop)
    assert here == [threading.main_thread()] * 2
    assert not stop.is_set()

    def full() -> None:
        raise OSError("the disk is full")

    def until_stopped() -> None:
        assert stop.wait(10)
        raise StoppedError

    works = [Work("a", full), Work("b", until_stopped)]
    with pytest.raises(OSError, match="the disk is full"):
        work_side_by_side(works, laptop, stop)
    assert all(work.aborted for work in works)
