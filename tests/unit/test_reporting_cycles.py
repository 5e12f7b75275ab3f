"""What a report says of simulated accelerators: cycles in a figure and a table, the staircase, and no latency."""

from __future__ import annotations

import csv
import html
import math
import re
from pathlib import Path

import pytest

from edgeprune.reporting import load, write_report
from edgeprune.reporting.counts import gains
from edgeprune.reporting.figures import draw
from edgeprune.reporting.staircase import steps_in_words
from edgeprune.schema import CellEnd, DeviceFacts, Network
from tests.unit import sample_run

RATIOS = (0.3, 0.5, 0.7)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def alone(folder: Path) -> Path:
    """A run on simulated accelerators and nothing else."""
    made = [one for one in sample_run.records() if one.kind not in ("launch", "cell")]
    return sample_run.write_run(folder / "run", [*made, *sample_run.simulated()])


def test_cycles_stand_in_no_latency_and_in_no_pair(tmp_path: Path) -> None:
    report = write_report(
        sample_run.write_run(tmp_path / "run", [*sample_run.records(), *sample_run.simulated()])
    )  # fmt: skip
    cells = [row for row in rows(report.csv["cells.csv"]) if row["runtime"] == "fpga"]
    assert len(cells) == 28
    for row in cells:
        size = int(row["target"].rpartition("x")[2])
        assert {row[name] for name in row if name.startswith("latency")} == {""}
        assert float(row["array_utilisation"]) == pytest.approx(1 / size)
        assert (row["bytes_moved"], row["accuracy"], row["parity_rel"]) == ("3000", "0.97", "0.002")
        assert int(row["stall_cycles"]) == int(row["cycles"]) // 10
        assert float(row["host_macs_share"]) == pytest.approx(1 / (size + 1))
    assert {row["runtime"] for row in rows(report.csv["pairs.csv"])} == {"onnxruntime", "tvm"}
    assert len(rows(report.csv["cycles.csv"])) == 28
    others = [row for row in rows(report.csv["cells.csv"]) if row["runtime"] != "fpga"]
    assert {row["cycles"] + row["array_utilisation"] + row["bytes_moved"] for row in others} == {""}


def test_the_answer_tells_cycles_where_nothing_is_timed(tmp_path: Path) -> None:
    folder = alone(tmp_path)
    expected = {}
    for one in gains(load(folder), "cycles"):
        if one.key.network.pruning_ratio == 0.5:
            expected.setdefault(one.key.target, []).append(one.gain)
    mean = {target: (first * second) ** 0.5 for target, (first, second) in expected.items()}
    answer = write_report(folder).answer
    assert answer.startswith("Removing 50 % of the filters promises ")
    assert f"cycles fall {mean['fpga-8x8']:.2f}× on fpga-8x8 and {mean['fpga-16x16']:.2f}× on fpga-16x16" in answer


def test_recipes_of_one_ratio_are_not_averaged(tmp_path: Path) -> None:
    plain = write_report(alone(tmp_path)).answer
    aligned = [
        one.model_copy(update={"cycles": 3 * one.cycles}) if isinstance(one, CellEnd) and one.cycles else one
        for one in sample_run.by_recipe(sample_run.simulated(), "l1(align=16)", 0)
    ]
    networks = [one for one in sample_run.records() if isinstance(one, Network)]
    made = [one for one in sample_run.records() if one.kind not in ("launch", "cell")]
    kept = [one for one in aligned if isinstance(one, CellEnd) and one.key.network.variant != "dense"]
    both = [*made, *sample_run.by_recipe(networks, "l1(align=16)", 0), *sample_run.simulated(), *kept]
    answer = write_report(sample_run.write_run(tmp_path / "both", both)).answer
    assert answer == plain.replace(" of the filters ", " of the filters by l1 ")


def test_a_run_that_is_timed_is_answered_by_its_times(tmp_path: Path) -> None:
    folder = sample_run.write_run(tmp_path / "run", [*sample_run.records(), *sample_run.simulated()])
    assert "cycles" not in write_report(folder).answer


def test_figures_and_tables(tmp_path: Path) -> None:
    report = write_report(alone(tmp_path))
    assert list(report.figures) == ["cycles", "staircase", "accuracy", "compression"]
    latex = [line for line in report.tables["cycles.tex"].read_text().splitlines() if line.endswith(r"\\")]
    assert len(latex) == 1 + 2 * 2 * len(RATIOS)
    page = html.unescape(report.html.read_text())
    assert re.search(r"<button type=\"button\">Fewer cycles</button>", page)
    assert re.search(r"<button type=\"button\">int8 accuracy</button>", page)
    assert "[[" not in re.sub(r"base64,[^\"]*", "", page), "the steps are no fact to read"
    plain = write_report(sample_run.write_run(tmp_path / "plain", sample_run.records()))
    assert not {"cycles", "staircase"} & set(plain.figures)
    assert "cycles.csv" not in plain.csv
    assert "ccelerator" not in re.sub(r"base64,[^\"]*", "", plain.html.read_text())


def test_the_staircase_is_drawn_as_it_was_simulated(tmp_path: Path) -> None:
    drawn = draw(load(alone(tmp_path)))["staircase"]
    eight, sixteen, macs = drawn.axes[0].lines
    assert list(eight.get_ydata()) == pytest.approx([100 * math.ceil(width / 8) ** 2 / 64 for width in range(1, 65)])
    assert list(sixteen.get_ydata()) == pytest.approx([100 * math.ceil(width / 16) ** 2 / 16 for width in range(1, 65)])
    assert list(macs.get_ydata()) == pytest.approx([100 * (width / 64) ** 2 for width in range(1, 65)])


def test_the_sentence_about_widths(tmp_path: Path) -> None:
    eight, sixteen = steps_in_words(load(alone(tmp_path)))
    assert eight.startswith(
        "fpga-sim-8x8: pruning a 3x3 layer from 64 to 57 channels removes 21 % of its MACs and 0 % of its cycles; "
        "one channel less removes 23 % of the cycles: align widths to 8"
    )
    assert sixteen.startswith(
        "fpga-sim-16x16: pruning a 3x3 layer from 64 to 49 channels removes 41 % of its MACs and 0 % of its cycles; "
        "one channel less removes 44 % of the cycles: align widths to 16"
    )


def test_without_steps_nothing_is_said(tmp_path: Path) -> None:
    made = [
        one.model_copy(update={"facts": {"core": 8}}) if isinstance(one, DeviceFacts) else one
        for one in sample_run.simulated()
    ]
    base = [one for one in sample_run.records() if one.kind not in ("launch", "cell")]
    results = load(sample_run.write_run(tmp_path / "run", [*base, *made]))
    assert steps_in_words(results) == []
    assert "staircase" not in draw(results)
