"""The table of shrinking: its masks are what it says, and its rows come back from the file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.unit.benchmark_scripts import load


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    return load("masked_cases")


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return load("shrinking_table")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    with torch.no_grad():
        model[1].bias.uniform_(0.5, 1.0)
        model[1].running_mean.uniform_(-0.5, 0.5)
    return model


@pytest.mark.parametrize("case", ["A", "B"])
def test_zero_filters_answer_zero_in_case_a_alone(cases: ModuleType, case: str) -> None:
    image = torch.randn(1, 3, 16, 16)
    masked = cases.masked(network(), 0.5, case, image)
    dead = (masked[0].weight == 0).flatten(1).all(1)
    assert 0 < int(dead.sum()) < 16
    with torch.no_grad():
        after = masked[1](masked[0](image))[:, dead]
    assert bool((after == 0).all()) == (case == "A")
    assert masked[2].inplace is False
    with torch.no_grad():
        assert torch.equal(masked[2](-image.abs()), torch.zeros_like(image))  # activations are themselves again


def test_rows_come_back_from_the_file(table: ModuleType, tmp_path: Path) -> None:
    ours = table.Row("resnet56", 0.5, "A", 1e-7, 1e-16, 10, 20, 1.0, 1.0, 0.1, 2.0, 1.0, 2.0, 3.0, 1.5, 2.0)
    theirs = table.Row("resnet56", 0.5, "torch-pruning", *[None] * 2, 9, 18, *[None] * 2, 0.2, *[1.0] * 4, *[None] * 2)
    table.write([ours, theirs], tmp_path / "rows.csv")
    assert table.read(tmp_path / "rows.csv") == [ours, theirs]
    assert table.read(tmp_path / "none.csv") == []
    assert table.page([ours, theirs], 1).count("\n| resnet56 | 50% |") == 2


def test_an_equal_network_has_no_error(table: ModuleType) -> None:
    model, other = network(), network()
    assert table.error(model, other, torch.zeros(1, 3, 32, 32)) == 0.0
    with torch.no_grad():
        other[3].bias[0] += 0.5
    assert table.error(model, other, torch.zeros(1, 3, 32, 32)) > 0.01
