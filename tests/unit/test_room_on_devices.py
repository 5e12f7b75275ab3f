"""What finished cells took of a device's disk is free for those that follow."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeprune.compiling import Artifact
from edgeprune.matrix.faults import Contact
from edgeprune.matrix.launch import Deployed, Place, deploy
from edgeprune.matrix.measure import Bench, CellWork, check_cell, measure_group
from edgeprune.measuring import PRESETS
from edgeprune.schema import CellEnd, CellKey, Launch, NetworkKey
from edgeprune.transport import LocalTransport


def work(way: LocalTransport, folder: Path, seed: int, purpose: str) -> CellWork:
    """A cell of which only its files are left to bring: its one launch was made."""
    program, image = folder / f"program-{seed}", folder / "input.bin"
    program.write_bytes(bytes([seed]) * 1000)
    image.write_bytes(b"the same for all")
    network = NetworkKey(model="m", dataset="d", method="", seed=seed, variant="dense")
    key = CellKey(network=network, runtime="native", target="host", device="local", threads=1, batch=1)
    artifact = Artifact("native", "host", 1, program, (program,))
    launch = Launch.model_validate({
        "session_id": "now", "cell_id": key.cell_id, "purpose": purpose, "block": 0, "unit": "u", "order": 0,
        "started_at": "", "cores": None, "warmup_ns": [], "group": 1, "steady": None, "samples_ns": [],
        "parity_rel": 0.0, "peak_rss_bytes": 1,
    })  # fmt: skip
    return CellWork(key, artifact, partial(deploy, way, artifact, image, np.zeros(1), np.zeros(1)), [launch])


@pytest.mark.parametrize("emulated", [False, True])
def test_a_finished_cell_s_program_is_discarded_and_not_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulated: bool
) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    ends: list[Launch | CellEnd] = []
    with contextlib.closing(LocalTransport()) as way:
        way.acquire()
        contact = Contact(way, {}, 1.0, threading.Event(), print, print)
        place = Place(way, "now", None, 1.0)
        bench = Bench(contact, lambda key: place, None, ends.append, lambda key, doing: None)
        cells = [work(way, tmp_path, seed, "memory") for seed in (1, 2)]
        if emulated:
            monkeypatch.setattr("edgeprune.matrix.measure.launch_check", lambda *_: cells[0].launches[0])
            for cell in cells:
                check_cell(bench, cell)
        else:
            measure_group(bench, cells, [], PRESETS["quick"])
            assert len(ends) == 2
        for cell in cells:
            assert isinstance(cell.deployed, Deployed)
            assert not Path(cell.deployed.model).exists()
            assert Path(cell.deployed.input_path).read_bytes() == b"the same for all"
