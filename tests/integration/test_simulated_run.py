"""Runs on a simulated accelerator, as a user starts them: skipped without Verilator, exact with it, simulated once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeprune import datasets
from edgeprune.compiling import fpga
from edgeprune.compiling.fpga import simulator
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.reporting import wording

MATRIX = """\
name: cycles
data: digits
models: [lenet5]
prune:
  - {method: l1, ratio: [0.5], seed: 0}
runtimes: [fpga]
devices: [{name: fpga-sim-8x8, clock_mhz: 200}]
train: {epochs: 3}
finetune: {epochs: 1}
"""


def edgeprune(place: Path, path: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EDGEPRUNE_CACHE": str(place / "cache"), "PATH": path}
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *words],
        cwd=place, env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("simulated")
    (place / "m.yaml").write_text(MATRIX)
    (place / "empty").mkdir()
    return place


def test_without_verilator_cells_are_skipped_with_the_command_that_installs_it(place: Path) -> None:
    done = edgeprune(place, str(place / "empty"), "run", "m.yaml")
    assert done.returncode == 0, done.stderr
    assert "0 ok, 0 invalid, 0 failed, 3 skipped" in done.stdout
    assert "apt install verilator g++" in done.stdout
    cells = rows(place / "results" / "cycles" / "cells.csv")
    assert {(cell["status"], cell["cycles"], cell["precision"]) for cell in cells} == {("skipped", "", "int8")}
    listed = edgeprune(place, str(place / "empty"), "devices")
    assert "fpga-sim-8x8\tneeds Verilator" in listed.stdout


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    missing = [name for name in ("verilator", "g++") if shutil.which(name) is None]
    if missing:
        words = f"{' and '.join(missing)} missing: apt install verilator g++"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    built = simulator.build(Core(8))  # which other tests use, too
    (place / "cache" / "fpga").mkdir(parents=True, exist_ok=True)
    shutil.copy(built, place / "cache" / "fpga")
    done = edgeprune(place, os.environ["PATH"], "run", "m.yaml", "--results", "results/with")
    assert done.returncode == 0, done.stderr + done.stdout
    return place / "results" / "with"


def test_cycles_are_counted_and_nothing_is_timed(finished: Path) -> None:
    cells = {cell["variant"]: cell for cell in rows(finished / "cells.csv")}
    assert {cell["status"] for cell in cells.values()} == {"ok"}
    assert {cell["latency_ns_median"] for cell in cells.values()} == {""}
    assert {(cell["precision"], cell["target"]) for cell in cells.values()} == {("int8", "fpga-8x8")}
    cycles = {variant: int(cell["cycles"]) for variant, cell in cells.items()}
    assert 0 < 2 * cycles["shrunk"] < cycles["masked"] == cycles["dense"]
    for cell in cells.values():
        assert 0.1 < float(cell["array_utilisation"]) < 1
        assert int(cell["bytes_moved"]) > int(cell["weights_bytes"])
        assert 0 < int(cell["stall_cycles"]) < int(cell["cycles"])
        assert float(cell["host_macs_share"]) == 0.0
        assert float(cell["accuracy"]) > 0.5


def test_layers_add_up(finished: Path) -> None:
    layers = rows(finished / "cycles.csv")
    for cell in rows(finished / "cells.csv"):
        own = [layer for layer in layers if layer["variant"] == cell["variant"]]
        assert [layer["op"] for layer in own] == ["Conv", "MaxPool", "Conv", "MaxPool", "Gemm", "Gemm"]
        assert sum(int(layer["cycles"]) for layer in own) == pytest.approx(int(cell["cycles"]), abs=2)
        assert sum(int(layer["macs"]) for layer in own) == int(cell["macs"])
        assert sum(int(layer["bytes_moved"]) for layer in own) == int(cell["bytes_moved"])


def test_the_report_tells_the_gain_and_the_staircase(finished: Path) -> None:
    assert {"cycles.png", "staircase.png"} <= {path.name for path in (finished / "figures").iterdir()}
    page = (finished / "report.html").read_text()
    assert "cycles fall" in page
    for cell in rows(finished / "cells.csv"):
        nanoseconds = 1e3 * int(cell["cycles"]) / 200  # at the clock that the matrix assumes
        assert f">{wording.millions(nanoseconds)}<" in page
    assert "pruning a 3x3 layer from 64 to 57 channels removes 21 % of its MACs and 0 % of its cycles" in page
    assert (finished / "tables" / "cycles.tex").is_file()


def test_every_digit_of_the_test_split_is_judged_as_by_onnxruntime(place: Path, finished: Path) -> None:
    del finished  # it made what is looked at
    model = sorted((place / "cache" / "artifact").glob("*/network.json"))[0]
    network = fpga.Network(model)
    made_from = json.loads((model.parent / "made_from.json").read_text())["ingredients"]["quantised"]
    session = onnxruntime.InferenceSession(
        str(place / "cache" / "quantised" / made_from / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    test = datasets.load("digits", (1, 28, 28)).test
    differing = []
    for number in range(len(test)):
        image = {"input": test[number][0][None].numpy()}
        got, (expected,) = network.run(image).outputs["output"], session.run(None, image)
        assert got.argmax() == expected.argmax(), number
        differing.append((got != expected).mean())
    assert len(differing) > 300
    assert np.mean(differing) < 0.01


def test_what_was_simulated_is_not_simulated_again(place: Path, finished: Path) -> None:
    before = sorted((place / "cache" / "cycles").iterdir())
    stamps = [folder.stat().st_mtime_ns for folder in before]
    again = edgeprune(place, os.environ["PATH"], "run", "m.yaml", "--results", "results/again")
    assert again.returncode == 0, again.stderr
    assert sorted((place / "cache" / "cycles").iterdir()) == before
    assert [folder.stat().st_mtime_ns for folder in before] == stamps
    cycles = [cell["cycles"] for cell in rows(place / "results" / "again" / "cells.csv")]
    assert cycles == [cell["cycles"] for cell in rows(finished / "cells.csv")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("devices: [fpga-sim-12x12]", "unknown device 'fpga-sim-12x12'"),
        ("devices: [local]", "local has nothing to run"),
        ("devices: [{name: fpga-sim-8x8, clock_mhz: -3}]", "clock_mhz: -3"),
        ("runtimes: [onnxruntime]", "no runtime makes one"),
        ("batch: [4]", "one image at a time"),
    ],
)
def test_a_matrix_that_cannot_run_there_is_told(tmp_path: Path, line: str, told: str) -> None:
    key = line.partition(":")[0]
    kept = [one for one in MATRIX.splitlines() if not one.startswith(f"{key}:")]
    (tmp_path / "m.yaml").write_text("\n".join([*kept, line]) + "\n")
    done = edgeprune(tmp_path, os.environ["PATH"], "run", "m.yaml")
    assert done.returncode == 2
    assert told in done.stderr
