"""The comparison with SCALE-Sim: what is compared with what, and how far apart they are said to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.benchmark_scripts import BENCHMARKS, load


def rows() -> list:
    script = load("scale_sim")
    return [
        script.Row("8x8", "Conv_0", 32, "3 > 16", 1000, 1300, 1100),
        script.Row("8x8", "Conv_2", 8, "64 > 64", 3000, 2700, 3900),
    ]


def test_the_nearer_dataflow_counts() -> None:
    assert [row.nearest for row in rows()] == pytest.approx([0.1, -0.1])
    total = load("scale_sim").total(rows())
    assert (total.edgeprune, total.weight_stationary, total.output_stationary) == (4000, 4000, 5000)
    assert total.nearest == 0.0


def test_the_table_has_a_line_a_layer() -> None:
    lines = load("scale_sim").table([*rows(), load("scale_sim").total(rows())]).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2] == "| 8x8 | Conv_0 | 32 x 32 | 3 > 16 | 1,000 | 1,300 | 1,100 | +10.0 % |"
    assert lines[4] == "| 8x8 | all convolutions |  |  | 4,000 | 4,000 | 5,000 | +0.0 % |"


def test_the_page_says_how_far_apart_all_convolutions_are() -> None:
    script = load("scale_sim")
    page = script.page([*rows(), script.total(rows())])
    assert "over all convolutions +0.0 % on 8x8.\n" in page
    assert page.endswith(script.table([*rows(), script.total(rows())]))


def test_without_scale_sim_its_error_is_shown(tmp_path: Path) -> None:
    asked = json.dumps({"n": 8, "dataflows": ["ws"], "layers": [[10, 10, 3, 8, 8, 1]]})
    worker = BENCHMARKS / "speed" / "workers" / "scale_sim_worker.py"
    done = subprocess.run(
        [sys.executable, "-S", str(worker)], input=asked, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "No module named 'scalesim'" in done.stderr
    assert done.stdout == ""
