"""Figure 3 of the 2022 paper: what a row measures, and that the page says what the rows say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import edgeprune as ep
from edgeprune.reporting.figures import encode
from tests.unit.benchmark_scripts import load


@pytest.fixture(scope="module")
def constants() -> ModuleType:
    return load("constants", "papers")


def rows(constants: ModuleType) -> list[Any]:
    dense = constants.Row("resnet20", 0, 0.0, 0.0, 0.99, 0.99, 0.99, 0.0, 0.0, 0.0)
    half = constants.Row("resnet20", 0, 0.5, 0.5, 0.98, 0.98, 0.95, 0.7, 0.72, 0.4)
    most = constants.Row("resnet20", 0, 0.8, 0.8, 0.90, 0.90, 0.40, 0.9, 0.91, 0.9)
    return [dense, half, most, *(replace(row, seed=1, drop_accuracy=row.drop_accuracy - 0.1) for row in (half, most))]


def test_an_exact_network_answers_as_the_masked_and_one_without_constants_does_not(constants: ModuleType) -> None:
    data = ep.datasets.load("digits", (1, 8, 8))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    with torch.no_grad():
        model[0].weight[:4] = 0.0
        model[1].bias[:4] = 50.0  # decides every answer
    found = constants.accuracies(model.eval(), data)
    assert found["masked_accuracy"] == found["exact_accuracy"] == ep.training.accuracy(model, data.test)
    assert found["drop_accuracy"] != found["masked_accuracy"]
    assert found["drop_difference"] > 0.5
    assert 0.4 < found["exact_params_gone"] <= found["drop_params_gone"] < 0.6


def test_rows_come_back_from_the_file(constants: ModuleType, tmp_path: Path) -> None:
    given = rows(constants)
    constants.write(given, tmp_path / "rows.csv")
    assert constants.read(tmp_path / "rows.csv") == given
    assert constants.read(tmp_path / "none.csv") == []


def test_the_page_tells_means_over_seeds(constants: ModuleType) -> None:
    page = constants.page(rows(constants))
    assert "## ResNet-20, 2 seeds" in page
    assert "| 50.0 % | 98.0 % | 98.0 % | 90.0 % | 30.0 % | 28.0 % | 0.4 |" in page
    assert "50 % of the filters are 70 % of the parameters" in page
    assert "8.0 at 50 % and at most 55.0, at 80 %, where 30 to 40 % of the answers are right by seed" in page
    assert "1.0 to 2.0 % of the dense network's parameters more" in page


def test_the_figure_has_a_panel_a_network_and_three_curves(constants: ModuleType) -> None:
    given = rows(constants)
    figure = constants.figure([*given, *(replace(row, network="lenet5") for row in given)])
    assert [axes.get_title() for axes in figure.axes] == ["ResNet-20", "LeNet-5"]
    lines = [line for line in figure.axes[0].get_lines() if line.get_label().startswith(("masked", "shrunk"))]
    assert [list(line.get_xdata()) for line in lines] == [[0, 50, 80], [0, 70, 90], pytest.approx([0, 72, 91])]
    assert encode(figure, "png").startswith(b"\x89PNG")
