"""A cell of an emulated device ends with its count, or with the reason why nothing was counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune import compiling, emulation
from edgeprune.emulation import Emulator
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.emulated import count_cell, emulator_for
from edgeprune.matrix.stages import INPUT_FILE, REFERENCE_FILE
from edgeprune.schema import CellEnd, CellKey, NetworkKey
from tests.unit.native.test_native_programs import emulator
from tests.unit.onnx_nets import Net, reference

KEY = CellKey(
    network=NetworkKey(model="net", dataset="digits", method="", seed=0, variant="dense"),
    runtime="native", target="rpi4", device="emulated-rpi4", threads=1, batch=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program for the Raspberry Pi 4 in `program`, its input and reference output in `network`."""
    place = tmp_path_factory.mktemp("made")
    net = Net((1, 3, 32, 32))
    path = net.save(place / "net.onnx", net.conv("x", 3, 32, 3))
    compiling.compile_onnx(path, place / "program", runtime="native", target="rpi4")
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    (place / "network").mkdir()
    image.tofile(place / "network" / INPUT_FILE)
    np.save(place / "network" / REFERENCE_FILE, reference(path, image))
    return place


def end(made: Path, cache: Path, here: Emulator, network: str = "network") -> CellEnd:
    return count_cell("first", KEY, Cache(cache), made / "program", made / network, here)


def test_the_count_is_the_program_s(made: Path, tmp_path: Path) -> None:
    here = emulator("rpi4")
    assert emulator_for("emulated-rpi4") == here
    counted = end(made, tmp_path, here)
    program = compiling.load_artifact(made / "program").model
    assert counted.status == "ok"
    assert counted.instructions == pytest.approx(emulation.count_instructions(program, here), abs=500)
    # 3 channels, 32 filters, 30 x 30 places, 3 x 3 weights: an instruction multiplies and adds at most four
    assert counted.instructions is not None
    assert counted.instructions > 3 * 32 * 900 * 9 / 4
    assert counted.artifact_bytes == program.stat().st_size


def test_a_wrong_answer_is_not_counted(made: Path, tmp_path: Path) -> None:
    here = emulator("rpi4")
    wrong = made / "wrong"
    wrong.mkdir()
    (wrong / INPUT_FILE).write_bytes((made / "network" / INPUT_FILE).read_bytes())
    answer = np.load(made / "network" / REFERENCE_FILE)
    answer.flat[0] += 1e-3 * np.abs(answer).max()
    np.save(wrong / REFERENCE_FILE, answer)
    assert end(made, tmp_path, here).status == "ok"
    failed = end(made, tmp_path, here, "wrong")  # of a program whose count is known
    assert (failed.status, failed.instructions) == ("failed", None)
    assert "differs from the reference by 1.0e-03" in failed.reason


def test_a_program_that_cannot_run_there_fails_its_cell(made: Path, tmp_path: Path) -> None:
    failed = end(made, tmp_path, emulator("rpi2"))
    assert failed.status == "failed"
    assert "ended with status" in failed.reason
