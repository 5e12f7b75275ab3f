"""What a report says of emulated devices: their counts in a figure and a table, and never among what was timed."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from edgeprune.reporting import answer, load, write_report
from edgeprune.reporting.counts import gains
from edgeprune.reporting.figures import draw
from edgeprune.schema import DeviceFacts
from tests.unit import sample_run

RATIOS = (0.3, 0.5, 0.7)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder: Path, *devices: str, timed: bool = True) -> Path:
    made = sample_run.records()
    if not timed:
        made = [one for one in made if one.kind not in ("launch", "cell")]
    return sample_run.write_run(folder / "run", [*made, *sample_run.counted(devices=devices)])


def figure(folder: Path) -> Figure:
    return draw(load(folder))["instructions"]


def points(drawn: Figure, *, hollow: bool) -> list[tuple[float, float]]:
    """The points of all pruned networks whose markers are filled, or are not."""
    return [
        (float(x), float(y))
        for line in drawn.axes[0].lines
        if line.get_linestyle() == "None" and (to_hex(line.get_markerfacecolor()) == "#ffffff") is hollow
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if x != 1.0
    ]


def test_the_figure_is_there_when_counts_are(tmp_path: Path) -> None:
    assert "instructions" in draw(load(run(tmp_path / "counted", "emulated-rpi4")))
    assert "instructions" not in draw(load(run(tmp_path / "timed")))


def test_shrunk_points_keep_what_instructions_keep_of_the_promise(tmp_path: Path) -> None:
    drawn = figure(run(tmp_path, "emulated-rpi4"))
    shrunk, masked = points(drawn, hollow=False), points(drawn, hollow=True)
    promised = [(1 - ratio) ** -by for by in (2.0, 1.6) for ratio in RATIOS]
    assert [x for x, _ in shrunk] == pytest.approx(promised, rel=1e-3)
    assert [y for _, y in shrunk] == pytest.approx([x ** sample_run.REALISED["native"] for x in promised], rel=1e-3)
    assert masked == [(pytest.approx(x, rel=1e-3), pytest.approx(1.0)) for x in promised]


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        (["emulated-rpi4"], ["LeNet-5, rpi4", "ResNet-20, rpi4"]),
        (
            ["emulated-rpi4", "emulated-rpi2"],
            [f"{model}, {board}" for board in ("rpi4", "rpi2") for model in ("LeNet-5", "ResNet-20")],
        ),
    ],
)
def test_a_line_for_each_network_and_device_from_the_dense_one(
    tmp_path: Path, devices: list[str], names: list[str]
) -> None:
    drawn = figure(run(tmp_path, *devices))
    lines = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == 1 + len(RATIOS)]
    assert len(lines) == len(names)
    for line in lines:
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (1.0, 1.0)
    labels = [str(one.get_label()) for one in drawn.legends[0].legend_handles if one is not None]
    assert [label for label in labels if label.strip()][: len(names)] == names


def test_counts_are_no_pairs_and_no_part_of_the_answer(tmp_path: Path) -> None:
    alone = write_report(run(tmp_path / "alone"))
    both = write_report(run(tmp_path / "both", "emulated-rpi4"))
    assert both.answer == alone.answer
    for name in ("pairs.csv", "layers.csv"):
        assert both.csv[name].read_bytes() == alone.csv[name].read_bytes()
    assert both.tables["pairs.tex"].read_bytes() == alone.tables["pairs.tex"].read_bytes()
    for name in ("speedup", "latency"):
        assert both.figures[name]["svg"].read_bytes() == alone.figures[name]["svg"].read_bytes()
    emulated = [row for row in rows(both.csv["cells.csv"]) if row["device"] == "emulated-rpi4"]
    assert len(emulated) == 14
    for row in emulated:
        assert int(row["instructions"]) > 0
        assert {row[name] for name in row if name.startswith("latency")} == {""}


def test_tables_of_instructions(tmp_path: Path) -> None:
    report = write_report(run(tmp_path / "both", "emulated-rpi4"))
    latex = [line for line in report.tables["instructions.tex"].read_text().splitlines() if line.endswith(r"\\")]
    assert len(latex) == 1 + 6
    (one,) = [gain for gain in gains(load(report.html.parent)) if gain.key.network == networks("resnet20", 0.5)]
    assert one.gain is not None
    assert f"& {one.gain:.2f} " in next(line for line in latex if "ResNet-20 & 50" in line)
    page = html.unescape(report.html.read_text())
    assert re.search(r"<button type=\"button\">Fewer instructions</button>", page)
    assert f"{one.gain:.2f}×" in page
    assert f"{one.shrunk:,}" in page
    plain = write_report(run(tmp_path / "alone"))
    assert "instructions.tex" not in plain.tables
    assert "nstructions" not in re.sub(r"base64,[^\"]*", "", plain.html.read_text())


def networks(model: str, ratio: float) -> object:
    return sample_run.network_key(model, ratio, "shrunk")


def test_a_matrix_that_only_counts_says_so(tmp_path: Path) -> None:
    report = write_report(run(tmp_path, "emulated-rpi4", timed=False))
    assert "nothing is timed" in report.answer
    assert list(report.figures) == ["instructions", "accuracy", "compression"]
    assert rows(report.csv["pairs.csv"]) == []


def test_without_dense_counts_there_is_no_figure_but_the_counts_stay(tmp_path: Path) -> None:
    made = [*sample_run.records(), *(one for one in sample_run.counted() if one.key.network.variant != "dense")]
    folder = sample_run.write_run(tmp_path / "run", made)
    assert "instructions" not in draw(load(folder))
    assert [one.gain for one in gains(load(folder))] == [None] * 6
    report = write_report(folder)
    assert "Not drawn, for want of finished cells: Promised gain and instructions." in report.html.read_text()


def test_one_cause_is_told_once(tmp_path: Path) -> None:
    reason = "qemu-user is not here"
    skipped = [
        one.model_copy(update={"status": "skipped", "reason": reason, "instructions": None})
        for one in sample_run.counted()
    ]
    report = write_report(sample_run.write_run(tmp_path / "run", [*sample_run.records(), *skipped]))
    page = report.html.read_text()
    assert page.count(reason) == 1
    assert "and 13 more cells: " + reason in page
    assert "emulated" not in report.answer


def test_a_stand_in_is_told_of_as_emulated_although_it_was_reached(tmp_path: Path) -> None:
    """Its cells end skipped, with counts: they are shown, and nobody is told that something went wrong."""
    facts = sample_run.FACTS | {"emulated": "qemu-user: aarch64 on an x86-64 kernel"}
    made = [one for one in sample_run.records() if one.kind not in ("launch", "cell")]
    ends = [
        end.model_copy(update={"status": "skipped", "reason": "emulated", "key": key, "cell_id": key.cell_id})
        for end in sample_run.counted()
        for key in [end.key.model_copy(update={"device": "virtual-pi", "target": "linux-arm64"})]
    ]
    there = DeviceFacts(session_id="first", device="virtual-pi", facts=facts)
    results = load(sample_run.write_run(tmp_path / "run", [*made, there, *ends]))
    assert not results.timed
    assert len(gains(results)) == 2 * len(RATIOS)
    assert answer(results).startswith("There is no answer: nothing is timed on emulated devices")
