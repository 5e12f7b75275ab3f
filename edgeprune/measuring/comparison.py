"""Whether a cell changed between two runs that were not interleaved. Start with `unpaired_ratio`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeprune.measuring.statistics import RatioSummary, median, per_call_ns, t_quantile_975, timed
from edgeprune.schema import Launch


def unpaired_ratio(before: Sequence[Launch], after: Sequence[Launch]) -> RatioSummary | None:
    """How many times as fast the launches `after` are as those `before`, with a 95 % interval; None without samples.

    The logarithms of the launches' medians are compared by Welch's t interval (degrees of freedom rounded down), since
    runs of two days share no blocks and need not vary alike. The interval is None if a side has a single launch.

    Source: Welch, "The generalization of Student's problem when several different population variances are involved",
    Biometrika 34 (1947).
    """
    logs = [np.array([math.log(median(per_call_ns(launch))) for launch in timed(side)]) for side in (before, after)]
    if not all(side.size for side in logs):
        return None
    centre = float(logs[0].mean() - logs[1].mean())
    launches = int(min(side.size for side in logs))
    if launches < 2:
        return RatioSummary(math.exp(centre), None, None, launches)
    parts = [float(side.var(ddof=1)) / side.size for side in logs]
    variance = sum(parts)
    if variance == 0.0:
        return RatioSummary(math.exp(centre), math.exp(centre), math.exp(centre), launches)
    degrees = variance**2 / sum(part**2 / (side.size - 1) for part, side in zip(parts, logs, strict=True))
    half = t_quantile_975(max(1, math.floor(degrees))) * math.sqrt(variance)
    return RatioSummary(math.exp(centre), math.exp(centre - half), math.exp(centre + half), launches)
