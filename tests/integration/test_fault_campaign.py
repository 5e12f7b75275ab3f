"""A short campaign of faults; `python -m tests.campaign` carries out a long one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.__main__ import NOT_HERE

CHECKOUT = Path(__file__).resolve().parents[2]
FAULTS = 10


def test_a_run_under_faults_on_two_devices_ends_as_one_without_them(tmp_path: Path) -> None:
    words = ["--faults", str(FAULTS), "--ratios", "1", "--seed", "3", "--place", str(tmp_path), "--out", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "EDGEPRUNE_CACHE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaign", *words],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    if done.returncode == NOT_HERE and not os.environ.get("CI"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "faults.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == FAULTS
    assert "| cells unfinished | 0 |" in (tmp_path / "faults.md").read_text()
