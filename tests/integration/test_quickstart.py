"""The main job, as a new user does it from an installed wheel: `edgeprune run quickstart`, from nothing, once."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from edgeprune import journal
from edgeprune.schema import Launch
from tests.conftest import Installed

FILES = ["manifest.json", "journal.jsonl", "cells.csv", "pairs.csv", "layers.csv", "report.html"]
FIGURES = ["speedup", "latency", "accuracy", "compression"]
EMULATED = "emulated-rpi4"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def on(folder: Path, device: str) -> list[dict[str, str]]:
    """The cells of one device."""
    return [cell for cell in rows(folder / "cells.csv") if cell["device"] == device]


def test_the_wheel_is_what_runs(installed: Installed) -> None:
    done = installed.run("python", "-c", "import edgeprune; print(edgeprune.__file__)")
    assert str(installed.python.parent.parent) in done.stdout
    devices = installed.run("edgeprune", "devices")
    assert devices.returncode == 0
    assert "answers" in devices.stdout


def test_every_file_of_the_contract_is_there(quickstart: Path) -> None:
    for name in FILES:
        assert (quickstart / name).stat().st_size > 0, name
    for figure in FIGURES:
        for kind in ("pdf", "svg", "png"):
            assert (quickstart / "figures" / f"{figure}.{kind}").stat().st_size > 1000, figure
    assert list((quickstart / "tables").glob("*.tex"))


def test_every_cell_is_measured(quickstart: Path) -> None:
    cells = on(quickstart, "local")
    assert len(cells) == 42
    assert {cell["status"] for cell in cells} == {"ok"}
    assert {cell["launches"] for cell in cells} == {"3"}
    for cell in cells:
        assert float(cell["parity_rel"]) <= 1e-4
        assert int(cell["samples"]) >= 3 * 64
        assert cell["instructions"] == ""


def test_a_percentile_stands_only_over_many_single_calls(quickstart: Path) -> None:
    records = journal.read(quickstart / "journal.jsonl").records
    grouped = {one.cell_id for one in records if isinstance(one, Launch) and one.group > 1}
    for cell in on(quickstart, "local"):
        single_calls = int(cell["samples"]) if cell["cell_id"] not in grouped else 0
        assert bool(cell["latency_ns_p90"]) is (single_calls >= 1024), cell["cell_id"]


def test_nothing_is_timed_under_emulation(quickstart: Path) -> None:
    cells = on(quickstart, EMULATED)
    assert len(cells) == 14
    assert {cell["runtime"] for cell in cells} == {"native"}
    for name in ("latency_ns_median", "launches", "samples", "peak_rss_bytes"):
        assert {cell[name] for cell in cells} == {""}
    assert not [pair for pair in rows(quickstart / "pairs.csv") if pair["device"] == EMULATED]


def test_shrinking_saves_instructions(quickstart: Path) -> None:
    if shutil.which("qemu-aarch64") is None:
        assert not os.environ.get("CI"), "in CI qemu-user must be installed"
        pytest.skip("qemu-user is not installed: apt install qemu-user")
    cells = on(quickstart, EMULATED)
    assert {cell["status"] for cell in cells} == {"ok"}
    for cell in cells:
        same = [one for one in cells if one["model"] == cell["model"]]
        counts = {(one["variant"], one["pruning_ratio"]): int(one["instructions"]) for one in same}
        dense = counts["dense", ""]
        # an instruction multiplies and adds four numbers at the most, and Winograd saves three of four multiplications
        assert dense > int(cell["macs"]) / 16
        assert counts["shrunk", "0.7"] < counts["shrunk", "0.5"] < counts["shrunk", "0.3"] < dense
        assert {round(count / dense, 2) for (variant, _), count in counts.items() if variant == "masked"} == {1.0}
    for kind in ("pdf", "svg", "png"):
        assert (quickstart / "figures" / f"instructions.{kind}").stat().st_size > 1000
    assert "Fewer instructions" in (quickstart / "report.html").read_text()


def test_both_networks_learn_the_digits(quickstart: Path) -> None:
    dense = {cell["model"]: float(cell["accuracy"]) for cell in rows(quickstart / "cells.csv") if not cell["method"]}
    assert set(dense) == {"lenet5", "resnet20"}
    for model, accuracy in dense.items():
        assert accuracy >= 0.97, model


def test_half_the_filters_are_enough_after_a_short_fine_tuning(quickstart: Path) -> None:
    pruned = [cell for cell in rows(quickstart / "cells.csv") if cell["pruning_ratio"] == "0.5"]
    assert {cell["model"] for cell in pruned} == {"lenet5", "resnet20"}
    for cell in pruned:
        assert float(cell["accuracy"]) >= 0.95, cell["model"]


def test_pairs_follow_from_the_cells(quickstart: Path) -> None:
    cells = on(quickstart, "local")
    pairs = rows(quickstart / "pairs.csv")
    assert len(pairs) == 18
    for pair in pairs:
        same = [
            cell
            for cell in cells
            if all(cell[key] == pair[key] for key in ("model", "method", "pruning_ratio", "runtime"))
        ]
        masked, shrunk = (next(cell for cell in same if cell["variant"] == name) for name in ("masked", "shrunk"))
        assert masked["accuracy"] == shrunk["accuracy"]
        assert int(masked["params"]) > int(shrunk["params"])
        macs = int(masked["macs"]) / int(shrunk["macs"])
        assert float(pair["theoretical_speedup_macs"]) == pytest.approx(macs)
        assert float(pair["theoretical_speedup_filters"]) == pytest.approx(1 / (1 - float(pair["pruning_ratio"])))
        assert float(pair["real_speedup_ci_low"]) <= float(pair["real_speedup"]) <= float(pair["real_speedup_ci_high"])
        medians = float(masked["latency_ns_median"]) / float(shrunk["latency_ns_median"])
        # of blocks here, of all samples there: beside other tests these differ
        assert 1 / 3 < float(pair["real_speedup"]) / medians < 3


def test_no_path_of_the_machine_is_in_what_a_user_publishes(quickstart: Path, installed: Installed) -> None:
    home = str(installed.folder)
    for path in [*quickstart.glob("*.csv"), *quickstart.glob("tables/*"), quickstart / "report.html"]:
        assert home not in path.read_text(), path.name


def test_the_second_time_comes_from_the_journal(quickstart: Path, installed: Installed) -> None:
    before = (quickstart / "journal.jsonl").read_bytes()
    done = installed.run("edgeprune", "run", "quickstart")
    assert done.returncode == 0
    assert (quickstart / "journal.jsonl").read_bytes() == before


def test_the_report_is_made_from_the_result_files_alone(quickstart: Path, installed: Installed, tmp_path: Path) -> None:
    for name in ("manifest.json", "journal.jsonl"):
        (tmp_path / name).write_bytes((quickstart / name).read_bytes())
    done = installed.run("edgeprune", "report", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in ("cells.csv", "pairs.csv", "layers.csv"):
        assert (tmp_path / name).read_text() == (quickstart / name).read_text()


def test_the_manifest_says_how_to_repeat_the_run(quickstart: Path) -> None:
    manifest = json.loads((quickstart / "manifest.json").read_text())
    assert manifest["matrix"]["data"] == "digits"
    assert isinstance(manifest["seed"], int)
    assert {"torch", "onnxruntime", "apache-tvm", "edgeprune"} <= set(manifest["versions"])
    assert manifest["devices"]["local"]["processor"]
