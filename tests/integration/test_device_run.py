"""Whole runs on devices that are not this machine: emulated ones are compared and never timed, dead ones fail alone."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgeprune import journal
from edgeprune.schema import CellEnd, Launch
from tests.standins import Reached

MATRIX = """\
name: boards
data: digits
models: [lenet5]
prune:
  - {method: l1, ratio: [0.5], seed: 0}
variants: [masked, shrunk]
runtimes: [native]
devices: [virtual-pi]
train: {epochs: 1}
finetune: {epochs: 1}
measure: {samples: 5, seconds: 0.02, launches: 1, group_seconds: 0.001, warmup_seconds: 0.02, warmup_max: 20}
"""
MARK = "EDGEPRUNE_TEST_PLACE"
NEVER_TAKEN = "latency_ns_median latency_ns_ci_low latency_ns_ci_high latency_ns_p90 samples peak_rss_bytes".split()
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, virtual_pi: Reached) -> Path:
    """A cache in which the running stand-in is the one that a matrix means by its name."""
    made = tmp_path_factory.mktemp("cache")
    (made / "standins").mkdir()
    (made / "standins" / "virtual-pi").symlink_to(virtual_pi.folder)
    return made


def start(place: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeprune", *words],
        cwd=place, env=os.environ | {"EDGEPRUNE_CACHE": str(cache), MARK: str(place)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )  # fmt: skip


def edgeprune(place: Path, cache: Path, *words: str) -> tuple[int, str]:
    """Its exit status, and all that it said."""
    child = start(place, cache, *words)
    out, err = child.communicate(timeout=900)
    return child.returncode, out + err


def cells(place: Path) -> list[dict[str, str]]:
    with (place / "results" / "boards" / "cells.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def on_the_board(virtual_pi: Reached) -> str:
    """The command lines of what runs on the emulated Pi."""
    script = 'for p in /proc/[0-9]*; do tr "\\0" " " <"$p/cmdline"; echo; done 2>/dev/null'
    return virtual_pi.run(script).stdout.decode(errors="replace")


def test_on_an_emulated_device_numbers_are_compared_once_and_nothing_is_timed(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "m.yaml").write_text(MATRIX)
    status, said = edgeprune(tmp_path, cache, "run", "m.yaml")
    assert status == 0, said
    for cell in cells(tmp_path):
        assert cell["status"] == "skipped"
        assert cell["reason"].startswith("emulated: ")
        assert float(cell["parity_rel"]) <= 1e-4
        assert int(cell["instructions"]) > 0, cell["reason"]
        assert [cell[column] for column in NEVER_TAKEN] == [""] * len(NEVER_TAKEN)
    path = tmp_path / "results" / "boards" / journal.JOURNAL_NAME
    made = [record for record in journal.read(path).records if isinstance(record, Launch)]
    assert [launch.purpose for launch in made] == ["check", "check"]
    assert not any(launch.samples_ns or launch.peak_rss_bytes for launch in made)
    before = path.read_bytes()
    assert edgeprune(tmp_path, cache, "run", "m.yaml")[0] == 0
    assert path.read_bytes() == before


def test_a_device_that_does_not_answer_fails_its_own_cells_and_the_laptop_measures(tmp_path: Path, cache: Path) -> None:
    dead = "{name: dead, address: pi@127.0.0.1:1, target: linux-arm64}"
    (tmp_path / "m.yaml").write_text(MATRIX.replace("[virtual-pi]", f"[{dead}, local]"))
    status, said = edgeprune(tmp_path, cache, "run", "m.yaml")
    assert status == 1, said
    assert {(cell["device"], cell["status"]) for cell in cells(tmp_path)} == {("dead", "failed"), ("local", "ok")}
    assert said.count("failed: 2 cells on dead: ") == 1
    status, said = edgeprune(tmp_path, cache, "status", "results/boards")
    assert [line.split("\t")[-1] for line in said.splitlines() if line.startswith("dead\t")] == ["never"]
    assert "and 1 more cells: dead: " in said


def test_ctrl_c_leaves_no_process_here_or_on_the_device(tmp_path: Path, cache: Path, virtual_pi: Reached) -> None:
    (tmp_path / "m.yaml").write_text(MATRIX.replace("[0.5]", "[0.3, 0.5]"))
    child = start(tmp_path, cache, "run", "m.yaml")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while " serve " not in on_the_board(virtual_pi):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline, "it never measured"
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 130
    assert "To go on: edgeprune run m.yaml" in told
    left = [one for one in psutil.process_iter(["environ"]) if (one.info["environ"] or {}).get(MARK) == str(tmp_path)]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []
    while " serve " in (there := on_the_board(virtual_pi)) or "agent.sh run" in there:
        assert time.monotonic() < deadline + PATIENCE_SECONDS, there
    ends = [one for one in journal.read(tmp_path / "results/boards/journal.jsonl").records if isinstance(one, CellEnd)]
    assert not [end for end in ends if end.status == "failed"], "what was stopped has not failed"
