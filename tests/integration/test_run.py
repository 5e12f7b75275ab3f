"""Whole runs from a subprocess, as a user starts them: resumed, killed, stopped, refused, and with cells that fail."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from edgeprune import journal
from edgeprune.schema import CellEnd, Launch
from tests.processes import command_words, left_after, running

MATRIX = """\
name: small
data: digits
models: [lenet5]
prune:
  - {method: l1, ratio: [0.5], seed: 0}
runtimes: [onnxruntime]
train: {epochs: 1}
finetune: {epochs: 1}
measure: {samples: 5, seconds: 0.02, launches: 3, group_seconds: 0.001, warmup_seconds: 0.02, warmup_max: 20}
"""
CELLS, LAUNCHES = 3, 3
MEASURED_ONCE = MATRIX.replace("launches: 3", "launches: 1")
MARK = "EDGEPRUNE_TEST_PLACE"

STOP_SECONDS = 10  # two are promised; a machine that others slow down may take longer


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A user's folder; whatever was started in it must be gone soon after the test."""
    (tmp_path / "m.yaml").write_text(MATRIX)
    yield tmp_path
    assert left_after(20, started_for(tmp_path)) == [], "a process was left behind"


def started_for(place: Path) -> list[psutil.Process]:
    """The processes, of any depth, that a run in this folder has started: they inherit its mark."""
    return running(lambda process: process.environ().get(MARK) == str(place))


def obey_ctrl_c() -> None:
    """Shells start what they put into the background, these tests perhaps, deaf to it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(place: Path, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"EDGEPRUNE_CACHE": str(cache), MARK: str(place)}
    return subprocess.Popen(
        [sys.executable, "-m", "edgeprune", *arguments],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=obey_ctrl_c,
    )  # fmt: skip


def edgeprune(place: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    child = start(place, cache, *arguments)
    out, err = child.communicate(timeout=300)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@pytest.fixture(scope="session")
def finished_run(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "m.yaml").write_text(MATRIX)
    done = edgeprune(folder, shared_cache, "run", "m.yaml")
    assert done.returncode == 0, done.stderr
    return folder / "results" / "small"


@pytest.fixture
def finished(place: Path, finished_run: Path) -> Path:
    """A user's folder where a run has finished."""
    shutil.copytree(finished_run, place / "results" / "small")
    return place


def records(place: Path) -> journal.JournalContents:
    return journal.read(place / "results" / "small" / journal.JOURNAL_NAME)


def launches(place: Path) -> list[Launch]:
    return [record for record in records(place).records if isinstance(record, Launch)]


def ends(place: Path) -> list[CellEnd]:
    return [record for record in records(place).records if isinstance(record, CellEnd)]


def assert_complete(place: Path) -> None:
    """Every cell has a launch in every block."""
    blocks: dict[str, set[int]] = {}
    for launch in launches(place):
        if launch.purpose == "latency":
            blocks.setdefault(launch.cell_id, set()).add(launch.block)
    assert list(blocks.values()) == [set(range(LAUNCHES))] * CELLS


def rows(place: Path, name: str) -> list[dict[str, str]]:
    with (place / "results" / "small" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_measures_everything_and_the_second_time_nothing(place: Path, shared_cache: Path) -> None:
    first = edgeprune(place, shared_cache, "run", "m.yaml")
    assert first.returncode == 0, first.stderr
    cells = {row["variant"]: row for row in rows(place, "cells.csv")}
    assert sorted(cells) == ["dense", "masked", "shrunk"]
    for row in cells.values():
        assert row["status"] == "ok"
        assert float(row["latency_ns_ci_low"]) <= float(row["latency_ns_median"]) <= float(row["latency_ns_ci_high"])
        assert row["launches"] == str(LAUNCHES)
        assert int(row["peak_rss_bytes"]) > 10_000_000
        assert float(row["parity_rel"]) <= 1e-4
        assert row["instructions"] == row["cycles"] == ""
    # 20-50-500 filters halved: 10 filters of 1x5x5, 25 of 10x5x5, 250 of 25*4*4, 10 classes; with biases
    assert int(cells["shrunk"]["params"]) == 10 * 26 + 25 * 251 + 250 * 401 + 10 * 251
    assert int(cells["dense"]["params"]) == int(cells["masked"]["params"]) == 431_080
    assert cells["masked"]["accuracy"] == cells["shrunk"]["accuracy"]
    (pair,) = rows(place, "pairs.csv")
    assert float(pair["theoretical_speedup_filters"]) == 2.0
    macs = int(cells["dense"]["macs"]) / int(cells["shrunk"]["macs"])
    assert float(pair["theoretical_speedup_macs"]) == pytest.approx(macs)
    assert (place / "results" / "small" / "report.html").is_file()
    before = (place / "results" / "small" / journal.JOURNAL_NAME).read_bytes()
    again = edgeprune(place, shared_cache, "run", "m.yaml")
    assert again.returncode == 0
    assert (place / "results" / "small" / journal.JOURNAL_NAME).read_bytes() == before


def test_every_runtime_of_this_machine_gives_the_same_numbers(place: Path, shared_cache: Path) -> None:
    (place / "m.yaml").write_text(MEASURED_ONCE.replace("[onnxruntime]", "[onnxruntime, tvm, torch]"))
    done = edgeprune(place, shared_cache, "run", "m.yaml")
    assert done.returncode == 0, done.stderr
    cells = rows(place, "cells.csv")
    assert Counter(cell["runtime"] for cell in cells) == {"onnxruntime": CELLS, "tvm": CELLS, "torch": CELLS}
    for cell in cells:
        assert cell["status"] == "ok"
        assert float(cell["parity_rel"]) <= 1e-5, cell["runtime"]


def test_twenty_kills_at_random_moments_lose_and_repeat_nothing(place: Path, shared_cache: Path) -> None:
    dice = random.Random(2)
    assert edgeprune(place, shared_cache, "run", "m.yaml", "--results", "warm-up").returncode == 0
    seen: list[Launch] = []
    finished: set[str] = set()
    kills = 0
    while kills < 20:
        child = start(place, shared_cache, "run", "m.yaml")
        try:
            child.communicate(timeout=dice.uniform(0.3, 2.2))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            kills += 1
        if not (place / "results" / "small" / journal.JOURNAL_NAME).exists():
            continue
        now = launches(place)
        assert now[: len(seen)] == seen, "a finished sample was lost"
        assert not finished & {launch.cell_id for launch in now[len(seen) :]}, "a finished cell was measured again"
        seen, finished = now, {end.cell_id for end in ends(place)}
        if len(finished) == CELLS:
            # finished: begin anew in the same folder's place
            (place / "results" / "small").rename(place / "results" / f"small-{kills}")
            seen, finished = [], set()
    last = edgeprune(place, shared_cache, "run", "m.yaml")
    assert last.returncode == 0, last.stderr
    assert records(place).problems == ()
    assert Counter(end.status for end in ends(place)) == {"ok": CELLS}
    assert_complete(place)


def test_partners_that_a_stop_parted_are_measured_together_again(finished: Path, shared_cache: Path) -> None:
    path = finished / "results" / "small" / journal.JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"cell"' not in line]
    paired = [number for number, line in enumerate(kept) if b'"purpose":"latency"' in line and b'"unit":"l1' in line]
    del kept[paired[-1] :]
    path.write_bytes(b"".join(kept))
    before = launches(finished)
    lonely = before[-1]
    assert edgeprune(finished, shared_cache, "run", "m.yaml").returncode == 0
    new = launches(finished)[len(before) :]
    redone = [launch for launch in new if launch.unit == lonely.unit and launch.block == lonely.block]
    assert len({launch.cell_id for launch in redone}) == 2
    assert len({launch.session_id for launch in redone}) == 1


@pytest.mark.usefixtures("finished_run")  # nothing is left to prepare before measuring
@pytest.mark.parametrize("phase", ["preparing", "measuring"])
def test_ctrl_c_stops_soon_and_says_how_to_go_on(place: Path, shared_cache: Path, phase: str) -> None:
    cache = place / "cache" if phase == "preparing" else shared_cache
    if phase == "measuring":
        (place / "m.yaml").write_text(MATRIX.replace("seconds: 0.02, launches", "seconds: 5, launches"))
    child = start(place, cache, "run", "m.yaml")
    wanted = "stage_process" if phase == "preparing" else "onnxruntime_worker"
    deadline = time.monotonic() + 60
    while not any(wanted in " ".join(command_words(process)) for process in started_for(place)):
        assert time.monotonic() < deadline, "the run never came to that phase"
        time.sleep(0.05)
    time.sleep(0.5)
    everything = started_for(place)
    assert len(everything) > 1
    deadline = time.monotonic() + STOP_SECONDS
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=STOP_SECONDS)
    assert left_after(deadline - time.monotonic(), everything) == []
    assert child.returncode == 130
    assert "To go on: edgeprune run m.yaml" in told
    assert "Traceback" not in told


def test_a_second_run_in_one_folder_is_refused(place: Path, shared_cache: Path) -> None:
    with journal.Journal.open(place / "results" / "small"):
        second = edgeprune(place, shared_cache, "run", "m.yaml")
    assert second.returncode == 2
    assert "another run is writing there" in second.stderr
    assert "--results" in second.stderr


def test_a_changed_measuring_plan_is_not_mixed_into_old_results(finished: Path, shared_cache: Path) -> None:
    (finished / "m.yaml").write_text(MATRIX.replace("samples: 5", "samples: 6"))
    other = edgeprune(finished, shared_cache, "run", "m.yaml")
    assert other.returncode == 2
    assert "measure" in other.stderr
    assert "--results" in other.stderr


def test_added_recipes_go_into_the_same_folder(finished: Path, shared_cache: Path) -> None:
    before = {row["cell_id"]: row["latency_ns_median"] for row in rows(finished, "cells.csv")}
    (finished / "m.yaml").write_text(MATRIX.replace("[0.5]", "[0.5, 0.7]"))
    assert edgeprune(finished, shared_cache, "run", "m.yaml").returncode == 0
    after = {row["cell_id"]: row["latency_ns_median"] for row in rows(finished, "cells.csv")}
    assert len(after) == CELLS + 2
    assert before.items() <= after.items()


RAISING = "def build():\n    layers = []\n    return layers[3]\n"
UNTRACEABLE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.fc = torch.nn.Linear(4, 10)
    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        if x.sum() > 0:
            x = x + 1
        return self.fc(x)
def build():
    return Net()
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [(RAISING, ["IndexError", "own_net.py:3"]), (UNTRACEABLE, ["own_net.py:10"])],
)
def test_a_user_s_model_that_fails_fails_its_cells_only(
    place: Path, shared_cache: Path, source: str, words: list[str]
) -> None:
    (place / "own_net.py").write_text(source)
    (place / "m.yaml").write_text(MEASURED_ONCE.replace("[lenet5]", "['own_net:build', lenet5]"))
    done = edgeprune(place, shared_cache, "run", "m.yaml")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    status = {(row["model"], row["variant"]): row for row in rows(place, "cells.csv")}
    for variant in ("masked", "shrunk"):
        assert status["own_net:build", variant]["status"] == "failed"
        for word in words:
            assert word in status["own_net:build", variant]["reason"]
        assert status["lenet5", variant]["status"] == "ok"


def test_a_journal_that_was_damaged_is_mended_by_the_same_command(finished: Path, shared_cache: Path) -> None:
    path = finished / "results" / "small" / journal.JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    victim = next(number for number, line in enumerate(lines) if b'"purpose":"latency"' in line)
    lines[victim] = lines[victim].replace(b'"block":', b'"blick":')
    lines[-1] = lines[-1][:-20]
    path.write_bytes(b"".join(lines))
    report = edgeprune(finished, shared_cache, "report", "results/small")
    assert f"journal.jsonl line {victim + 1} left out" in report.stderr
    assert "Traceback" not in report.stderr
    again = edgeprune(finished, shared_cache, "run", "m.yaml")
    assert again.returncode == 0, again.stderr
    assert len([row for row in rows(finished, "cells.csv") if row["status"] == "ok"]) == CELLS
    assert_complete(finished)


def test_a_full_disk_stops_with_one_message_and_loses_nothing(finished: Path, shared_cache: Path) -> None:
    """A limit of the kernel on file sizes stands in for the disk: the journal cannot grow to its full length."""
    path = finished / "results" / "small" / journal.JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if b'"purpose":"latency"' in line)
    path.write_bytes(b"".join(lines[: first + 1]))
    limit = path.stat().st_size + len(lines[0]) + 2 * len(lines[first])
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY));"
        "from edgeprune.cli import main; sys.exit(main(['run', 'm.yaml']))"
    )
    environment = os.environ | {"EDGEPRUNE_CACHE": str(shared_cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=finished, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    kept = launches(finished)
    assert len(kept) > 2
    assert edgeprune(finished, shared_cache, "run", "m.yaml").returncode == 0
    assert launches(finished)[: len(kept)] == kept
    assert_complete(finished)


def test_a_cell_that_failed_is_paired_when_it_is_mended(finished: Path, shared_cache: Path) -> None:
    """The shrunk cell's launches and end are lost, as if it had failed: its partner is measured beside it again."""
    shrunk = next(row["cell_id"] for row in rows(finished, "cells.csv") if row["variant"] == "shrunk")
    path = finished / "results" / "small" / journal.JOURNAL_NAME
    kept = [
        line for line in path.read_bytes().splitlines(keepends=True) if f'"cell_id":"{shrunk}"'.encode() not in line
    ]
    path.write_bytes(b"".join(kept))
    assert edgeprune(finished, shared_cache, "run", "m.yaml").returncode == 0
    (pair,) = rows(finished, "pairs.csv")
    assert float(pair["real_speedup"]) > 0
    assert pair["real_speedup_ci_low"] != ""


def test_a_results_folder_of_another_machine_is_not_gone_on_with(finished: Path, shared_cache: Path) -> None:
    path = finished / "results" / "small" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["devices"]["local"]["processor"] = "another"
    path.write_text(json.dumps(manifest))
    (finished / "m.yaml").write_text(MATRIX.replace("[0.5]", "[0.5, 0.7]"))
    done = edgeprune(finished, shared_cache, "run", "m.yaml")
    assert done.returncode == 2
    assert "local is another machine" in done.stderr


def test_what_other_versions_measured_is_not_gone_on_with(finished: Path, shared_cache: Path) -> None:
    path = finished / "results" / "small" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["onnxruntime"] = "1.0"
    path.write_text(json.dumps(manifest))
    assert edgeprune(finished, shared_cache, "run", "m.yaml").returncode == 0, "nothing is left to do"
    (finished / "m.yaml").write_text(MATRIX.replace("[0.5]", "[0.5, 0.7]"))
    done = edgeprune(finished, shared_cache, "run", "m.yaml")
    assert done.returncode == 2
    assert "onnxruntime 1.0 ->" in done.stderr


def test_a_user_s_folder_does_not_shadow_the_standard_library(place: Path, shared_cache: Path) -> None:
    (place / "m.yaml").write_text(MEASURED_ONCE)
    (place / "random.py").write_text("raise RuntimeError('not this one')\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "edgeprune"), "run", "m.yaml"],
        cwd=place, env=os.environ | {"EDGEPRUNE_CACHE": str(shared_cache)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_folder_of_pictures_is_trained_on(place: Path, shared_cache: Path) -> None:
    """Pictures are read by processes that the preparing process starts, while it listens for the end of the run."""
    for number in range(40):
        picture = place / "pictures" / f"class{number % 4}" / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 60).save(picture)
    pictures = MEASURED_ONCE.replace("data: digits", "data: {name: image_folder, folder: pictures}")
    (place / "m.yaml").write_text(pictures)
    done = edgeprune(place, shared_cache, "run", "m.yaml")
    assert done.returncode == 0, done.stderr
    assert {end.status for end in ends(place)} == {"ok"}


def test_status_tells_what_is_left(finished: Path, shared_cache: Path) -> None:
    done = edgeprune(finished, shared_cache, "status", "results/small")
    assert done.returncode == 0
    assert "no run is active" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("local"))
    assert line.split("\t")[:3] == ["local", "3", "3"]
    assert json.loads((finished / "results" / "small" / "manifest.json").read_text())["name"] == "small"
