"""The benchmark of shrinking against torch-pruning: rounds alternate, medians are right, gaps are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import edgeprune as ep
from tests.unit.benchmark_scripts import load


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load("shrinking_speed")


def test_every_second_round_runs_in_the_other_order(benchmark: ModuleType) -> None:
    ran: list[str] = []

    def action(name: str) -> Callable[[], Callable[[], object]]:
        def prepare() -> Callable[[], object]:
            ran.append(f"prepare {name}")
            return lambda: ran.append(name)

        return prepare

    taken = list(benchmark.rounds([action("a"), action("b")], repeats=2))
    assert [name for name in ran if len(name) == 1] == ["b", "a", "a", "b", "b", "a"]
    assert [len(one) for one in taken] == [2, 2]
    assert ran[:2] == ["prepare b", "b"]


def test_medians_and_the_median_quotient(benchmark: ModuleType) -> None:
    taken = [[(1.0, 2.0), (4.0, 8.0)], [(2.0, 2.0), (4.0, 6.0)], [(3.0, 5.0), (3.0, 7.0)]]
    row = benchmark.summary("net", taken)
    assert row == benchmark.Row("net", 3, 2.0, 4.0, 0.5, 2.0, 7.0)
    assert "met; worst 0.50 (net)" in benchmark.table([row])
    slow = benchmark.Row("slow", 3, 3.0, 4.0, 0.75, 3.0, 4.0)
    assert "missed; worst 0.75 (slow)" in benchmark.table([row, slow])


def test_rows_are_written(benchmark: ModuleType, tmp_path: Path) -> None:
    benchmark.write_csv([benchmark.Row("net", 3, 2.0, 4.0, 0.5, 2.0, 7.0)], tmp_path / "rows.csv")
    head, line = (tmp_path / "rows.csv").read_text().splitlines()
    assert head.startswith("network,rounds,edgeprune_cpu_s,torch_pruning_cpu_s,cpu_ratio")
    assert line == "net,3,2.0,4.0,0.5,2.0,7.0"


def test_masked_networks_have_zeroed_filters_and_the_original_has_none(benchmark: ModuleType) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 8, 1)).eval()
    zeroed = benchmark.masked(model, 0.5)
    dead = ~(zeroed[0].weight != 0).flatten(1).any(1)
    assert 16 <= int(dead.sum()) <= 48
    assert bool((model[0].weight != 0).flatten(1).any(1).all())
    assert ep.shrink(zeroed, torch.zeros(1, 3, 8, 8)).model.get_submodule("0").out_channels == 64 - int(dead.sum())


def test_what_lacks_is_named(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert benchmark.main(["--networks", "resnet56"]) == 2
    assert "pip install --no-deps torch-pruning" in capsys.readouterr().err


@pytest.mark.parametrize("mistake", [["--ratio", "1.5"], ["--repeats", "0"], ["--networks", "resnet57"]])
def test_mistakes_end_with_usage(benchmark: ModuleType, mistake: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        benchmark.main(mistake)
    assert caught.value.code == 2
