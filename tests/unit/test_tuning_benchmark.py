"""The benchmark of tuning: its turns, its interval, its page."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgeprune.compiling.tvm.form import Form
from edgeprune.compiling.tvm.tuned import Found
from tests.unit.benchmark_scripts import load

script = load("tuning")


@dataclass
class Counted:
    """A call that counts."""

    calls: int = field(default=0)

    def __call__(self) -> None:
        self.calls += 1


def test_turns_are_shared_out() -> None:
    first, second = Counted(), Counted()
    latency = script.timed_in_turn({"first": first, "second": second}, rounds=5)
    assert {name: len(values) for name, values in latency.items()} == {"first": 5, "second": 5}
    assert second.calls % 5 == 0
    assert first.calls - second.calls == 20  # those that found how many calls a turn takes
    assert all((values > 0).all() for values in latency.values())


def test_gain_of_known_latencies() -> None:
    noise = np.random.default_rng(1).normal(1, 0.01, 200)
    gain, low, high = script.gain(1500 * noise, 1000 * noise[::-1])
    assert low < 1.5 < high
    assert low < gain < high
    assert high - low < 0.02


def test_page() -> None:
    kernel = Found("conv", Form(2, 8, 1, rows_outside=True), tuned_ns=2000, untuned_ns=2500, trials=64)
    row = script.Row("lenet5", [kernel], 12.3, 3e-7, 80e3, 76e3, 1.053, 1.04, 1.06)
    text = script.page([row], "python tuning.py")
    assert "| lenet5 | 80.0 | 76.0 | 1.05 | 1.04 - 1.06 | 12 | 3e-07 |" in text
    assert "| lenet5 | conv | 64 | 2.5 | 2.0 | 1.25 | 2 x 8 x 1, rows outside |" in text
