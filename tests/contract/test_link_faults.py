"""A link that is cut, reset or killed under a running program: over real ssh."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgeprune.errors import LinkLostError
from edgeprune.transport import Channel, RemoteTransport
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd
from tests.processes import kill_all, left_after, running, soon

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
    assert left_after(30, clients) == []
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
    kill_all(of_launches(sshd))
    for entry in (sshd.cache / "edgeprune-device" / "launches").iterdir():
        entry.rename(entry.with_name("forgotten"))
    sshd.start()
    with pytest.raises(LinkLostError, match="no longer knows the launch"):
        noted.channel.receive(PATIENCE)
    noted.channel.stop()
    assert board.facts()["machine"]


def of_launches(sshd: LoopbackSshd) -> list[psutil.Process]:
    """Processes that the agent started or keeps for a launch, whoever their parent is."""
    place = str(sshd.cache)
    return running(lambda process: process.environ().get("EDGEPRUNE_LAUNCH", "").startswith(place))


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


def test_a_program_is_given_up_when_the_run_s_patience_with_its_link_ends(
    sshd: LoopbackSshd, proxy: FaultyProxy, tmp_path: Path
) -> None:
    hasty = RemoteTransport(sshd.link(proxy.port, ("-o", "ConnectTimeout=1")), patience_s=2.0)
    assert hasty.acquire()
    noted = Noted(hasty, tmp_path / "noted")
    noted.ask()
    noted.answer(1)
    proxy.cut()
    for client in psutil.Process().children():
        if client.name() == "ssh":
            client.kill()
    with pytest.raises(LinkLostError, match="not back within 2 s") as caught:
        noted.channel.receive(PATIENCE)
    assert caught.value.away_s > 0
    noted.channel.stop()
    proxy.mend()
    hasty.close()
