"""When is a process warm: the test that ends warm-up.

A first call loads pages, fills caches and wakes cores, so early samples are slow. `is_steady` compares the two halves
of the last samples; `warmup_decision` adds the minimum and the point at which it is given up. Start with `is_steady`.

The thresholds are pyperf's (`test_calibrate_warmups` in pyperf/_worker.py, and its `MAX_WARMUP_VALUES` of 300). Three
things differ: the window slides over the last samples only, a spread of zero counts as agreement where pyperf divides
by zero, and pyperf's test of the very first value is not needed behind a minimum of 10 calls.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from edgeprune.measuring.plan import MeasurePlan

MEAN_FASTER, MEAN_SLOWER = -0.50, 0.10
QUARTILES_DIFFER = 0.05
MAD_DIFFERS = 0.10

WarmupDecision = Literal["continue", "steady", "give up"]


def is_steady(window_ns: Sequence[float]) -> bool:
    """Whether the two halves of a window of samples agree, so that the process counts as warm.

    The first half, against the second: its mean lies within -50..+10 %, both quartiles within 5 % and the median
    absolute deviation within 10 %. A window of fewer than 4 samples is never steady.

    >>> is_steady([5.0] * 20), is_steady([9.0] * 10 + [5.0] * 10)
    (True, False)
    """
    half = len(window_ns) // 2
    if half < 2:
        return False
    first, second = list(window_ns[-2 * half : -half]), list(window_ns[-half:])
    mean = _relative(statistics.fmean(first), statistics.fmean(second))
    if not MEAN_FASTER <= mean <= MEAN_SLOWER:
        return False
    first_quartiles, second_quartiles = _quartiles(first), _quartiles(second)
    for one, other in zip(first_quartiles, second_quartiles, strict=True):
        if abs(_relative(one, other)) > QUARTILES_DIFFER:
            return False
    return abs(_relative(_mad(first), _mad(second))) <= MAD_DIFFERS


def warmup_decision(calls: int, seconds: float, samples_ns: Sequence[float], plan: MeasurePlan) -> WarmupDecision:
    """What a warming process does next: "continue", start measuring ("steady"), or measure all the same ("give up").

    Args:
        calls: Calls made so far.
        seconds: Seconds since the first of them.
        samples_ns: What they took, grouped as the samples that follow will be: single short calls would use up
            `plan.warmup_max` within milliseconds.
        plan: Where the minimum, the window and the maximum come from.

    >>> from edgeprune.measuring.plan import PRESETS
    >>> warmup_decision(30, 0.6, [5.0] * 30, PRESETS["quick"])
    'steady'
    """
    if calls < plan.warmup_calls or seconds < plan.warmup_seconds:
        return "continue"
    if len(samples_ns) >= plan.warmup_window and is_steady(samples_ns[-plan.warmup_window :]):
        return "steady"
    return "give up" if len(samples_ns) >= plan.warmup_max else "continue"


def _relative(first: float, second: float) -> float:
    """(first - second) / second, and 0 where both are 0."""
    if first == second:
        return 0.0
    return (first - second) / second if second else float("inf")


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _mad(values: list[float]) -> float:
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)
