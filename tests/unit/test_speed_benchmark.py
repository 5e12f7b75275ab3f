"""The benchmark of TVM against ONNX Runtime: wrong numbers are not timed, and the interval is that of the project."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgeprune.errors import ParityError
from tests.unit.benchmark_scripts import load


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load("tvm_vs_onnxruntime")


class FixedOutput:
    """A worker that answers the same output whatever it is asked, and takes 1 ms a call."""

    def __init__(self, output: np.ndarray) -> None:
        self.output = output

    def load(self, model: str, threads: int) -> None:
        pass

    def bind(self, inputs: list[tuple[str, np.ndarray]]) -> None:
        pass

    def check(self, count: int) -> list[np.ndarray]:
        return [self.output] * count

    def time(self, *, group: int, samples: int, seconds: float, lead: int = 0) -> SimpleNamespace:
        return SimpleNamespace(group=group, samples_ns=[1_000_000 * group] * samples)


@pytest.mark.parametrize(("output", "right"), [(1.0, True), (1.00005, True), (1.001, False), (math.nan, False)])
def test_only_right_numbers_are_timed(benchmark: ModuleType, output: float, right: bool) -> None:
    image, wanted = np.zeros(3, np.float32), np.ones(3, np.float32)
    worker = FixedOutput(np.array([1.0, 1.0, output]))
    if right:
        assert benchmark.Contender(worker, "model.so", ("x", image), wanted, 1).latency_ns() == 1e6
    else:
        with pytest.raises(ParityError, match=r"model\.so"):
            benchmark.Contender(worker, "model.so", ("x", image), wanted, 1)


def test_ratio_and_verdict(benchmark: ModuleType) -> None:
    ratio, low, high = benchmark.ratio([20.0, 5.0, 10.0, 10.0], [10.0, 10.0, 10.0, 10.0])
    assert ratio == pytest.approx(1.0)
    assert low < 0.7 < 1.4 < high
    row = benchmark.Row("net", 1, 0.0, {"tvm": [12.0], "onnxruntime": [10.0]}, 1.2, 1.1, 1.3, 0.5)
    text = benchmark.table([row])
    assert "| net | 1 | 0.0 | 0.0 | 1.20 | 1.10 - 1.30 | 0.5 | 0e+00 |" in text
    assert "Goal 1.15 on every network: missed; worst 1.20 (net)." in text
