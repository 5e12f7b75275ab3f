"""What one device's part of a run says and writes down where its device has a past, or a count goes wrong."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from edgeprune.compiling import Artifact
from edgeprune.errors import CompileError, EdgepruneError, ParityError, StorageError
from edgeprune.journal import Journal
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.device import DeviceInUse
from edgeprune.matrix.device_run import DeviceRun, RunContext
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.progress import PlainProgress
from edgeprune.matrix.side_by_side import Laptop
from edgeprune.measuring import PRESETS
from edgeprune.schema import CellKey, NetworkKey
from edgeprune.transport import LocalTransport

FACTS: dict[str, Any] = {"machine": "aarch64", "emulated": "qemu-user: aarch64"}
KEY = CellKey(
    network=NetworkKey(model="m", dataset="d", method="", seed=0, variant="dense"),
    runtime="native", target="rpi4", device="board", threads=1, batch=1,
)  # fmt: skip


class Inherited(LocalTransport):
    """A device whose earlier user was not heard of for too long."""

    name = "board"

    def taken_over_from(self) -> str:
        return "ann@laptop-17"


class MadeHere:
    """What was made, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folders(self, key: CellKey) -> tuple[Path, Path]:
        return self._folder, self._folder


@dataclasses.dataclass(frozen=True)
class Bench:
    """A device's part of a run, and what came of it."""

    run: DeviceRun
    memory: Memory
    said: io.StringIO
    laptop: Laptop


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    said, plan, laptop = io.StringIO(), PRESETS["quick"], Laptop()
    (tmp_path / "results").mkdir()
    with Journal.open(tmp_path / "results") as writer:
        memory = Memory(tmp_path / "results", writer, plan)
        context = RunContext(
            session_id="now", plan=plan, seed=0, memory=memory, made=cast(Any, MadeHere(tmp_path)),
            cache=Cache(tmp_path / "cache"), progress=PlainProgress(said), laptop=laptop, stop=threading.Event(),
            patience_s=1.0,
        )  # fmt: skip
        device = DeviceInUse(Inherited(), [], FACTS, None)
        run = DeviceRun(context, device, [KEY], [KEY], lambda name, facts: None)
        yield Bench(run, memory, said, laptop)
        device.way.close()


def test_whose_device_it_was_is_said(bench: Bench) -> None:
    bench.run._take()
    assert "board: taken over from ann@laptop-17" in bench.said.getvalue()


@pytest.mark.parametrize("error", [ParityError("differs"), StorageError("no room"), CompileError("damaged")])
def test_a_count_that_goes_wrong_is_told_in_its_cell_and_stops_nothing(
    bench: Bench, error: EdgepruneError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> int:
        raise error

    artifact = Artifact("native", "rpi4", 1, tmp_path / "model", (tmp_path / "model",))
    (tmp_path / "model").write_bytes(b"")
    if not isinstance(error, CompileError):
        monkeypatch.setattr("edgeprune.compiling.load_artifact", lambda folder: artifact)
    monkeypatch.setattr("edgeprune.matrix.device_run.emulator_of_target", lambda target: None)
    monkeypatch.setattr("edgeprune.matrix.device_run.count", fails)
    bench.run._count(KEY)
    end = bench.memory.ends[KEY.cell_id]
    assert (end.status, end.instructions) == ("skipped", None)
    assert "instructions not counted: " in end.reason
    assert isinstance(error, CompileError) or error.message in end.reason
