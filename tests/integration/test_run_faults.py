"""Whole runs over ssh whose links are cut, whose devices are taken, or who answer wrongly: one fault, one test.

The boards are this machine behind ssh servers of its own, each behind a proxy that can be cut: they are no emulation,
so everything is really timed. A user's ~/.ssh/config knows them by name.
"""

from __future__ import annotations

import csv
import getpass
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgeprune import journal
from edgeprune.matrix.launch import now
from edgeprune.schema import CellEnd, Launch
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd, new_key, require_sshd
from tests.contract.test_link_faults import of_launches
from tests.integration.test_run import MARK, obey_ctrl_c, started_for
from tests.processes import command_words, kill_all, left_after, soon
from tests.standins import Plugged

MATRIX = """\
name: faults
data: digits
models: [lenet5]
variants: [dense]
runtimes: [native]
devices: [{name: one, address: "ssh:one"}]
train: {epochs: 1}
measure: {samples: 5, seconds: 0.02, launches: 2, group_seconds: 0.001, warmup_seconds: 0.02, warmup_max: 20}
"""
LONG = MATRIX.replace("seconds: 0.02, launches: 2", "seconds: 15, launches: 1")
"""One latency launch, that takes at least 15 s."""
BOTH = MATRIX.replace('"ssh:one"}', '"ssh:one"}, {name: two, address: "ssh:two"}')
CUT_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
BUSY_SECONDS = 1.0  # no other part of a launch computes for as long


class Board:
    """A device of the test's own, and the detour to it."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir()
        self.name = name
        self.sshd = LoopbackSshd(folder)
        self.sshd.start()
        self.proxy = FaultyProxy(self.sshd.port)
        self._know(self.sshd.known_hosts.read_text().replace(f":{self.sshd.port} ", f":{self.proxy.port} "))

    def close(self) -> None:
        self.proxy.close()
        self.sshd.stop()

    def _know(self, line: str) -> None:
        self.sshd.known_hosts.write_text(line)

    def know_another_key(self) -> None:
        """What the user's machine remembers is not the key that the device has now."""
        kind, public = new_key(self.sshd.folder / "before").with_suffix(".pub").read_text().split()[:2]
        self._know(f"[127.0.0.1]:{self.proxy.port} {kind} {public}\n")

    def configuration(self) -> str:
        """Its lines of ~/.ssh/config."""
        return (
            f"Host {self.name}\n HostName 127.0.0.1\n Port {self.proxy.port}\n User {self.sshd.user}\n"
            f" IdentityFile {self.sshd.identity}\n IdentitiesOnly yes\n UserKnownHostsFile {self.sshd.known_hosts}\n"
        )

    def workers(self) -> list[psutil.Process]:
        """The programs that edgeprune runs on it."""
        return [process for process in of_launches(self.sshd) if command_words(process)[1:3] == ["serve", "--threads"]]

    def is_timing(self) -> bool:
        """Whether a worker there has computed for longer than anything but a long request to take times does."""
        return any(_busy_seconds(worker) > BUSY_SECONDS for worker in self.workers())


def _busy_seconds(process: psutil.Process) -> float:
    try:
        return float(process.cpu_times().user)
    except psutil.Error:
        return 0.0


@dataclass
class Laptop:
    """A user's folder, from which boards are reached by names of ~/.ssh/config.

    Attributes:
        place: Where the user works.
        cache: What was made before.
        path: Where programs are found: ssh is the real one, with that configuration.
    """

    place: Path
    cache: Path
    path: str
    said: list[Path] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`edgeprune run` with these words; what it says is read with `heard`."""
        self.said.append(self.place / f"said-{len(self.said)}")
        with self.said[-1].open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "edgeprune", "run", *words],
                cwd=self.place, stdout=file, stderr=file, preexec_fn=obey_ctrl_c,
                env=os.environ | {"EDGEPRUNE_CACHE": str(self.cache), MARK: str(self.place), "PATH": self.path},
            )  # fmt: skip

    def heard(self) -> str:
        """What the last run has said so far."""
        return self.said[-1].read_text()

    def run(self, *words: str) -> int:
        """The exit status of a run."""
        return self.start(*words).wait(PATIENCE_SECONDS)

    def records(self) -> list[object]:
        path = self.place / "results" / "faults" / journal.JOURNAL_NAME
        return list(journal.read(path).records) if path.exists() else []

    def launches(self, purpose: str = "latency") -> list[Launch]:
        return [one for one in self.records() if isinstance(one, Launch) and one.purpose == purpose]

    def cells(self) -> list[dict[str, str]]:
        with (self.place / "results" / "faults" / "cells.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Callable[..., list[Board]]]:
    """Starts boards of these names."""
    require_sshd()
    with ExitStack() as open_now:

        def start(*names: str) -> list[Board]:
            found = []
            for name in names:
                found.append(Board(name, tmp_path / f"board-{name}"))
                open_now.callback(found[-1].close)
            return found

        yield start


@pytest.fixture
def laptops(tmp_path: Path, cache: Path) -> Iterator[Callable[..., Laptop]]:
    """Makes laptops that know boards; whatever is started there must be gone soon after."""
    made: list[Laptop] = []

    def make(known: list[Board], matrix: str, name: str = "laptop", own_cache: str = "") -> Laptop:
        place = tmp_path / name
        place.mkdir()
        (place / "m.yaml").write_text(matrix)
        programs = tmp_path / f"bin-{len(made)}"
        programs.mkdir()
        (programs / "config").write_text("".join(board.configuration() for board in known))
        wrapper = programs / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {programs / "config"} "$@"\n')
        wrapper.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        made.append(Laptop(place, place / own_cache if own_cache else cache, path))
        return made[-1]

    yield make
    for laptop in made:
        left = left_after(20, started_for(laptop.place))
        kill_all(left)
        assert left == [], "a process was left behind"


def test_a_cut_of_half_a_minute_in_a_launch_costs_nothing(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop]
) -> None:
    (board,) = boards("one")
    laptop = laptops([board], LONG)
    run = laptop.start("m.yaml")
    assert soon(board.is_timing, PATIENCE_SECONDS), laptop.heard()
    (worker,) = board.workers()
    board.proxy.cut()
    time.sleep(CUT_SECONDS)
    assert run.poll() is None
    assert laptop.launches() == [], "its end cannot have come through"
    board.proxy.mend()
    assert run.wait(PATIENCE_SECONDS) == 0, laptop.heard()
    (launch,) = laptop.launches()
    assert sum(launch.samples_ns) > 14e9
    assert [cell["status"] for cell in laptop.cells()] == ["ok"]
    assert float(laptop.cells()[0]["latency_ns_median"]) > 0
    assert "once more" not in laptop.heard()
    assert left_after(30, [worker]) == []
    assert soon(lambda: not of_launches(board.sshd))
    assert soon(lambda: not board.sshd.served()), "nobody may be logged in any more"


def test_a_device_that_is_lost_fails_alone_and_is_finished_by_the_same_command(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop]
) -> None:
    lost, other = boards("one", "two")
    matrix = BOTH.replace("runtimes", "batch: [1, 2]\nruntimes").replace(
        "seconds: 0.02, launches", "seconds: 8, launches"
    )
    laptop = laptops([lost, other], matrix)
    run = laptop.start("m.yaml", "--patience", "5")
    assert soon(lambda: any(_of(laptop, end, "one") for end in _ends(laptop)), PATIENCE_SECONDS), laptop.heard()
    assert soon(lost.is_timing, PATIENCE_SECONDS), laptop.heard()
    lost.sshd.stop()
    assert run.wait(PATIENCE_SECONDS) == 1, laptop.heard()
    first = {(cell["device"], cell["batch"]): cell for cell in laptop.cells()}
    assert {at: cell["status"] for at, cell in first.items()} == {
        ("one", "1"): "ok", ("one", "2"): "failed", ("two", "1"): "ok", ("two", "2"): "ok",
    }  # fmt: skip
    assert "one: no contact for " in first["one", "2"]["reason"]
    assert "the same command goes on where this one stopped" in first["one", "2"]["reason"]

    lost.sshd.start()
    assert laptop.run("m.yaml", "--patience", "5") == 0, laptop.heard()
    assert {cell["status"] for cell in laptop.cells()} == {"ok"}
    made = Counter((one.cell_id, one.purpose, one.block) for one in laptop.records() if isinstance(one, Launch))
    # four cells, each once for memory and twice for latency
    assert made == Counter(dict.fromkeys(made, 1))
    assert len(made) == 4 * 3


def _ends(laptop: Laptop) -> list[CellEnd]:
    return [one for one in laptop.records() if isinstance(one, CellEnd)]


def _of(laptop: Laptop, end: CellEnd, device: str) -> bool:
    manifest = json.loads((laptop.place / "results" / "faults" / "manifest.json").read_text())
    return any(cell["cell_id"] == end.cell_id and cell["device"] == device for cell in manifest["cells"])


def test_a_board_that_another_laptop_measures_on_is_waited_for(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop]
) -> None:
    (board,) = boards("one")
    first = laptops([board], LONG.replace("seconds: 15", "seconds: 3000"))
    second = laptops([board], MATRIX, "second")
    measuring = first.start("m.yaml")
    assert soon(board.is_timing, PATIENCE_SECONDS), first.heard()
    waiting = second.start("m.yaml")
    words = f"one: another run is measuring on it ({getpass.getuser()}@"
    assert soon(lambda: words in second.heard(), PATIENCE_SECONDS), second.heard()
    assert measuring.poll() is None
    assert f"-{measuring.pid}-" in second.heard().partition(words)[2], "the run that has it"
    assert len(board.workers()) == 1, "nothing of the second may run yet"
    assert waiting.poll() is None
    released = now()
    measuring.send_signal(signal.SIGINT)
    assert measuring.wait(PATIENCE_SECONDS) == 130, first.heard()
    assert waiting.wait(PATIENCE_SECONDS) == 0, second.heard()
    assert [cell["status"] for cell in second.cells()] == ["ok"]
    assert len(second.launches()) == 2
    assert released < min(one.started_at for one in second.launches("memory"))


STRANGE = "a b'c\"d;$(touch pwned)`touch pwned`\n&e"
OWN_NET = """
from torch import nn
def build(word, classes=10):
    assert word == WORD
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
"""


def test_names_with_spaces_quotes_and_commands_are_only_names(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop]
) -> None:
    (board,) = boards("one")
    model = json.dumps({"name": "own_net:build", "options": {"word": STRANGE}})
    laptop = laptops([board], MATRIX.replace("lenet5", model), STRANGE, "the cache " + STRANGE)
    (laptop.place / "own_net.py").write_text(f"WORD = {STRANGE!r}\n{OWN_NET}")
    matrix = f"m {STRANGE}.yaml"
    (laptop.place / "m.yaml").rename(laptop.place / matrix)
    status = laptop.run(matrix, "--results", f"results {STRANGE}/faults")
    assert status == 0, laptop.heard()
    (laptop.place / f"results {STRANGE}").rename(laptop.place / "results")
    (cell,) = laptop.cells()
    assert cell["status"] == "ok"
    assert cell["model"] == f"own_net:build(word={STRANGE})"
    assert not list(laptop.place.parent.rglob("pwned"))
    assert not Path("pwned").exists()
    assert not Path.home().joinpath("pwned").exists()


def test_wrong_numbers_fail_their_cell_and_are_not_timed(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop]
) -> None:
    (board,) = boards("one")
    matrix = MATRIX.replace("[dense]", "[dense, shrunk]\nprune: [{method: l1, ratio: 0.5}]")
    laptop = laptops([board], matrix + "finetune: {epochs: 1}\n", own_cache="cache")
    assert laptop.run("m.yaml", "--results", "before") == 0, laptop.heard()
    _alter_reference(laptop.cache)
    assert laptop.run("m.yaml") == 1, laptop.heard()
    cells = {cell["variant"]: cell for cell in laptop.cells()}
    assert cells["dense"]["status"] == "failed"
    assert "the output on the device differs from the reference by 5.0e-01 relative" in cells["dense"]["reason"]
    assert "nothing was timed" in cells["dense"]["reason"]
    assert not cells["dense"]["latency_ns_median"]
    assert cells["shrunk"]["status"] == "ok"
    assert {one.cell_id for one in laptop.records() if isinstance(one, Launch)} == {cells["shrunk"]["cell_id"]}


def _alter_reference(cache: Path) -> None:
    """Let the largest network that was made be held to other numbers than its own: twice as large."""
    made = [path.parent for path in cache.glob("network/*/network.json")]
    folder = max(made, key=lambda one: int(json.loads((one / "network.json").read_text())["params"]))
    reference, mark = folder / "reference.npy", folder / "made_from.json"
    np.save(reference, 2 * np.load(reference))
    told = json.loads(mark.read_text())
    told["sha256"]["reference.npy"] = hashlib.sha256(reference.read_bytes()).hexdigest()
    mark.write_text(json.dumps(told))


def test_what_a_person_must_mend_fails_one_device_and_not_the_others(
    boards: Callable[..., list[Board]], laptops: Callable[..., Laptop], virtual_phone: Plugged
) -> None:
    changed, good = boards("one", "two")
    changed.know_another_key()
    phone = json.dumps({
        "name": "phone-of-mine",
        "address": f"adb:{virtual_phone.serial}",
        "adb": virtual_phone.adb,
        "server_port": virtual_phone.server_port,
        "target": "huawei-p20",
    })  # fmt: skip
    laptop = laptops([changed, good], BOTH.replace("devices: [", f"devices: [{phone}, "))
    virtual_phone.order(do="authorize", allowed=False)
    try:
        assert laptop.run("m.yaml") == 1, laptop.heard()
    finally:
        virtual_phone.order(do="authorize", allowed=True)
    cells = {cell["device"]: cell for cell in laptop.cells()}
    assert cells["two"]["status"] == "ok"
    assert [cells[name]["status"] for name in ("one", "phone-of-mine")] == ["failed", "failed"]
    assert "its host key is not the one that was accepted before" in cells["one"]["reason"]
    assert "ssh-keygen -f " in cells["one"]["reason"]
    assert "the phone does not know this computer yet" in cells["phone-of-mine"]["reason"]
    assert "Allow USB debugging" in cells["phone-of-mine"]["reason"]
    assert "Traceback" not in laptop.heard()
