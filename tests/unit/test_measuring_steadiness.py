"""Warm-up and heat: when measuring may start."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.measuring import PRESETS, is_steady, thermal_gate, throttled_window, warmup_decision
from edgeprune.schema import Reading

QUICK = PRESETS["quick"]


def oracle(window: list[float]) -> bool:
    """The rule of DESIGN.md written out in numpy: mean -50..+10 %, quartiles 5 %, MAD 10 %, against the second half."""
    first, second = np.array(window[: len(window) // 2]), np.array(window[len(window) // 2 :])
    mean = first.mean() / second.mean() - 1
    quartiles = np.quantile(first, [0.25, 0.75]) / np.quantile(second, [0.25, 0.75]) - 1
    mad = np.median(abs(first - np.median(first))) / np.median(abs(second - np.median(second))) - 1
    return bool(-0.5 <= mean <= 0.1 and (abs(quartiles) <= 0.05).all() and abs(mad) <= 0.1)


def test_the_rule_equals_numpy_on_random_windows() -> None:
    generator = np.random.default_rng(0)
    answers = []
    for _ in range(2000):
        scale = generator.choice([0.97, 1.0, 1.03, 1.2])
        first = generator.lognormal(0, generator.choice([0.005, 0.05]), 10) * scale
        window = [*first, *generator.lognormal(0, 0.05, 10)]
        answers.append(is_steady(window))
        assert answers[-1] == oracle(window)
    assert 20 < sum(answers) < 1980


@pytest.mark.parametrize(
    ("window", "steady"),
    [
        ([5.0] * 20, True),  # no spread at all: pyperf divides by zero here
        ([0.0] * 20, True),
        ([5.0, 5.1] * 10, True),
        ([9.0] * 10 + [5.0] * 10, False),
        ([5.0] * 10 + [5.3, 5.2] * 5, False),
        ([100.0 - i for i in range(20)], False),
        ([5.0, 5.0, 5.0], False),
        ([], False),
    ],
)
def test_plain_windows(window: list[float], steady: bool) -> None:
    assert is_steady(window) is steady


def test_warm_up_needs_its_minimum_then_steadiness_and_gives_up_at_300() -> None:
    steady, falling = [5.0] * 20, [1e6 / (i + 1) for i in range(300)]
    assert warmup_decision(9, 9.0, steady, QUICK) == "continue"
    assert warmup_decision(20, 0.49, steady, QUICK) == "continue"
    assert warmup_decision(19, 0.6, steady[:19], QUICK) == "continue"
    assert warmup_decision(20, 0.5, steady, QUICK) == "steady"
    assert warmup_decision(70, 0.6, [*falling[:50], *steady], QUICK) == "steady"
    ramp = [1e9 * 0.98**i for i in range(300)]
    assert warmup_decision(299, 3.0, ramp[:299], QUICK) == "continue"
    assert warmup_decision(300, 3.0, ramp, QUICK) == "give up"


def test_ordinary_noise_settles_long_before_giving_up() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        samples = list(1e6 * (1 + 0.01 * generator.lognormal(0, 0.8, 300)))
        assert any(warmup_decision(n, 1.0, samples[:n], QUICK) == "steady" for n in range(20, 200))


@pytest.mark.parametrize(
    ("idle", "now", "waited", "decision"),
    [
        (45.0, 48.0, 0.0, "go"),
        (45.0, 48.1, 0.0, "wait"),
        (45.0, 48.1, 299.9, "wait"),
        (45.0, 48.1, 300.0, "give up"),
        (45.0, 47.0, 400.0, "go"),
        (None, 90.0, 0.0, "go"),
        (45.0, None, 0.0, "go"),
    ],
)
def test_the_thermal_gate(idle: float | None, now: float | None, waited: float, decision: str) -> None:
    assert thermal_gate(idle, now, waited) == decision


def test_a_window_is_throttled_if_one_reading_says_so_and_unknown_if_none_can() -> None:
    no, yes, unread = (Reading(t_ns=0, throttled=value) for value in (False, True, None))
    assert throttled_window([no, yes, unread]) is True
    assert throttled_window([no, unread]) is False
    assert throttled_window([unread]) is None
    assert throttled_window([]) is None
