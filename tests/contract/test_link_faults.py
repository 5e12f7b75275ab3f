"""A link that is cut, reset or killed under a running program, and a device that two laptops want: over real ssh."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgeprune.errors import LeaseLostError, LinkLostError
from edgeprune.transport import Channel, RemoteTransport
from edgeprune.transport.lease import Lease
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd, soon

PATIENCE = 120.0
# notes each request in a file before it answers it
NOTING = 'while IFS= read -r line; do printf "%s\\n" "$line" >>"$1"; printf "{\\"got\\":%s}\\n" "$line"; done'


@pytest.fixture
def board(sshd: LoopbackSshd, proxy: FaultyProxy) -> Iterator[RemoteTransport]:
    """A device behind a link that can be broken."""
    transport = RemoteTransport(sshd.link(proxy.port))
    assert transport.acquire()
    yield transport
    proxy.mend()
    transport.close()


class Noted:
    """A program on the device, and which requests it has been given."""

    def __init__(self, transport: RemoteTransport, file: Path) -> None:
        self.channel: Channel = transport.run(["sh", "-c", NOTING, "sh", str(file)], None)
        self._file = file
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1
        self.channel.send({"n": self.asked})

    def answer(self, number: int) -> None:
        assert self.channel.receive(PATIENCE) == {"got": {"n": number}}

    def all_once(self) -> bool:
        return self._file.read_text().splitlines() == [f'{{"n":{n + 1}}}' for n in range(self.asked)]


def test_a_program_outlives_a_cut_and_hears_each_request_once(
    board: RemoteTransport, proxy: FaultyProxy, tmp_path: Path
) -> None:
    noted = Noted(board, tmp_path / "noted")
    noted.ask()
    noted.answer(1)
    proxy.cut()
    noted.ask()
    noted.ask()
    time.sleep(3.0)
    proxy.mend()
    noted.answer(2)
    noted.answer(3)
    assert noted.all_once()
    noted.channel.stop()


def test_a_program_outlives_lost_connections_and_hears_each_request_once(
    board: RemoteTransport, proxy: FaultyProxy, tmp_path: Path
) -> None:
    noted = Noted(board, tmp_path / "noted")
    for turn in range(3):
        noted.ask()
        if turn % 2:
            noted.answer(noted.asked)
        proxy.lose()
        noted.ask()
        if turn % 2 == 0:
            noted.answer(noted.asked - 1)
        noted.answer(noted.asked)
    assert noted.all_once()
    noted.channel.stop()


def test_a_program_outlives_a_link_that_the_client_gives_up(
    sshd: LoopbackSshd, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Cut for so long that the client calls the device dead, and then back."""
    impatient = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2", "-o", "ConnectTimeout=2")
    board = RemoteTransport(sshd.link(proxy.port, impatient))
    assert board.acquire()
    noted = Noted(board, tmp_path / "noted")
    noted.ask()
    noted.answer(1)
    clients = [child for child in psutil.Process().children() if child.name() == "ssh"]
    proxy.cut()
    noted.ask()
    assert soon(lambda: all(ended(client) for client in clients))
    proxy.lose()
    proxy.mend()
    noted.answer(2)
    assert noted.all_once()
    noted.channel.stop()
    board.close()


@pytest.mark.parametrize("fault", ["reset", "client killed", "connection killed"])
def test_an_end_that_the_device_sees_ends_the_program_and_is_told(
    sshd: LoopbackSshd, board: RemoteTransport, proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    """The device cannot know that it is not the laptop that wants to stop; the link is good again at once."""
    noted = Noted(board, tmp_path / "noted")
    noted.ask()
    noted.answer(1)
    clients = sorted(
        (one for one in psutil.Process().children() if one.name() == "ssh"), key=psutil.Process.create_time
    )
    if fault == "reset":
        proxy.reset()
    else:
        clients[-1 if fault == "client killed" else 0].kill()
    with pytest.raises(LinkLostError, match="link was lost"):
        noted.channel.receive(PATIENCE)
    noted.channel.stop()
    assert soon(lambda: not of_launches(sshd))
    again = Noted(board, tmp_path / "again")
    again.ask()
    again.answer(1)
    again.channel.stop()


def test_a_program_that_went_down_with_its_device_is_told(
    sshd: LoopbackSshd, board: RemoteTransport, tmp_path: Path
) -> None:
    noted = Noted(board, tmp_path / "noted")
    noted.ask()
    noted.answer(1)
    sshd.stop()
    for process in of_launches(sshd):
        process.kill()
    for entry in (sshd.cache / "edgeprune-device" / "launches").iterdir():
        entry.rename(entry.with_name("forgotten"))
    sshd.start()
    with pytest.raises(LinkLostError, match="no longer knows the launch"):
        noted.channel.receive(PATIENCE)
    noted.channel.stop()
    assert board.facts()["machine"]


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended, be it that nobody has asked for its status yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def of_launches(sshd: LoopbackSshd) -> list[psutil.Process]:
    """Processes that the agent started or keeps for a launch, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EDGEPRUNE_LAUNCH", "").startswith(str(sshd.cache)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_laptop_that_is_killed_leaves_nothing_running(sshd: LoopbackSshd, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from edgeprune.transport import RemoteTransport
from edgeprune.transport.ssh import SshLink
board = RemoteTransport(SshLink("board", "127.0.0.1", {sshd.user!r}, {sshd.port}, Path({str(sshd.identity)!r}),
                                Path({str(sshd.known_hosts)!r})))
assert board.acquire()
channel = board.run(["sh", "-c", "echo '{{}}'; trap '' TERM; sleep 600; sleep 600"], None)
channel.receive({PATIENCE})
print("up", flush=True)
channel.receive(600)
"""
    laptop = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert laptop.stdout is not None
    assert laptop.stdout.readline() == b"up\n"
    assert of_launches(sshd)
    laptop.send_signal(signal.SIGKILL)
    laptop.wait()
    laptop.stdout.close()
    assert soon(lambda: not of_launches(sshd))
    assert soon(lambda: not sshd.connections())


# --- the lease --------------------------------------------------------------------------------------------------------


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
    second.drop()


def test_the_lease_of_a_laptop_that_vanished_runs_out(
    two_laptops: tuple[RemoteTransport, RemoteTransport], proxy: FaultyProxy
) -> None:
    first, second = (lease_over(laptop, 3) for laptop in two_laptops)
    assert first.take(0.0)
    proxy.cut()
    assert second.take(PATIENCE)
    proxy.mend()
    with pytest.raises(LeaseLostError, match="has taken the device"):
        check_when_it_answers(first)
    assert not first.held
    first.drop()
    second.check()
    second.drop()


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
