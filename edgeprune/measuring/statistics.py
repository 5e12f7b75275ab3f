"""From samples to a latency with its interval, and from interleaved launches to a speed-up with its interval.

Two functions carry the module: `cell_latency` for one cell, `paired_ratio` for a masked/shrunk pair. Both resample
whole launches, because samples of one process resemble each other (its memory layout, its core, its warm state): more
samples a launch never replace more launches (Kalibera & Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013,
section 4). Both widen the bootstrap's interval for the few launches there are, see `expand_interval`.

Arrays of samples are float64 [samples], nanoseconds a call. Everything is seeded: the same samples give the same
intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.measuring.thermal import throttled_window
from edgeprune.schema import Launch

P90_FROM_SAMPLES = 1024
OUTLIER_MADS = 14.8
DRIFT_LIMIT = 0.05
RATIO_RESAMPLES = 10_000
LATENCY_RESAMPLES = 2_000

_RESAMPLES_A_CHUNK = 2_000_000

Array = NDArray[np.float64]
Verdict = Literal["faster", "slower", "no change", "unknown"]


@dataclass(frozen=True)
class LatencySummary:
    """Latency of one cell in nanoseconds a call, over all samples of all launches.

    The interval is None with a single launch; `p90` with fewer than 1,024 samples, or where a sample is the mean of a
    group of calls: the percentile of means says nothing of single calls.
    """

    median: float
    ci_low: float | None
    ci_high: float | None
    p90: float | None
    samples: int
    launches: int


@dataclass(frozen=True)
class RatioSummary:
    """How many times as fast the shrunk network is as the masked one; the interval is None with a single block."""

    ratio: float
    ci_low: float | None
    ci_high: float | None
    blocks: int


def timed(launches: Sequence[Launch]) -> list[Launch]:
    """The launches whose samples count: of latency, and not in a window in which the device throttled.

    A sample taken at a lowered clock is another machine's sample: the run measures again, and the journal keeps both.
    """
    return [
        launch
        for launch in launches
        if launch.purpose == "latency" and launch.samples_ns and not throttled_window(launch.readings)
    ]


def per_call_ns(launch: Launch) -> Array:
    """The samples of a launch as nanoseconds a call, float64 [samples]: each sample divided by its group's size."""
    return np.asarray(launch.samples_ns, dtype=np.float64) / launch.group


def median(samples_ns: Array | Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones; ValueError without samples."""
    values = np.asarray(samples_ns, dtype=np.float64)
    if values.size == 0:
        raise ValueError("the median of no samples")
    return float(np.median(values))


def p90(samples_ns: Array | Sequence[float]) -> float | None:
    """The 90th percentile (linear interpolation), or None below 1,024 samples, each of which is to be a single call.

    Source: MLPerf Mobile reports the 90th percentile of at least 1,024 samples.
    """
    values = np.asarray(samples_ns, dtype=np.float64)
    return float(np.quantile(values, 0.9)) if values.size >= P90_FROM_SAMPLES else None


def outliers(samples_ns: Array | Sequence[float]) -> NDArray[np.intp]:
    """Places of the samples further than 14.8 median absolute deviations (10 sigma of a normal) from the median.

    Where most samples are equal, as with a coarse clock, 0.1 % of the median stands in for a deviation of zero.
    Source: the threshold is hyperfine's (`OUTLIER_THRESHOLD`).

    >>> outliers([10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 30.0]).tolist()
    [6]
    """
    values = np.asarray(samples_ns, dtype=np.float64)
    if values.size == 0:
        return np.empty(0, dtype=np.intp)
    middle = np.median(values)
    spread = max(float(np.median(np.abs(values - middle))), 1e-3 * float(middle))
    return np.flatnonzero(np.abs(values - middle) > OUTLIER_MADS * spread)


def drift(samples_ns: Array | Sequence[float]) -> float | None:
    """Relative change of the median from the first quarter of a launch's samples to the last; None below 8 samples.

    0.05 says that the launch ended 5 % slower than it began. Medians keep single spikes out of it.

    >>> drift([100.0] * 50 + [110.0] * 50)
    0.1
    """
    values = np.asarray(samples_ns, dtype=np.float64)
    quarter = values.size // 4
    if quarter < 2:
        return None
    first = float(np.median(values[:quarter]))
    return (float(np.median(values[-quarter:])) - first) / first


def cell_latency(launches: Sequence[Launch], seed: int = 0) -> LatencySummary | None:
    """Median latency of a cell over the launches that count (`timed`), with a 95 % interval; None without samples.

    The interval is a hierarchical bootstrap (launches are drawn with replacement, then samples inside each), expanded
    for the number of launches. It is None with one launch, which says nothing of the next. The 90th percentile is that
    of calls, so it is None if any launch timed groups of them.

    Source: Kalibera & Jones 2013, section 4 (levels of repetition); Hesterberg 2015 (see `expand_interval`).
    """
    counted = timed(launches)
    arrays = [per_call_ns(launch) for launch in counted]
    if not arrays:
        return None
    pooled = np.concatenate(arrays)
    middle = median(pooled)
    low: float | None = None
    high: float | None = None
    if len(arrays) > 1:
        resampled = np.log(_hierarchical_medians(arrays, np.random.default_rng(seed)))
        low, high = expand_interval(resampled, math.log(middle), len(arrays))
    tail = p90(pooled) if all(launch.group == 1 for launch in counted) else None
    return LatencySummary(middle, low, high, tail, int(pooled.size), len(arrays))


def paired_ratio(blocks: Sequence[tuple[Launch, Launch]], seed: int = 0) -> RatioSummary | None:
    """The real speed-up of a masked/shrunk pair, from launches that ran back to back; None without blocks.

    Each block is (masked launch, shrunk launch); its ratio is median(masked) / median(shrunk). The ratio is their
    geometric mean, the interval a 95 % bootstrap over blocks (10,000 resamples), expanded for the number of blocks.

    Source: Kalibera & Jones 2013, section 5 (ratio of means with an interval); Hesterberg 2015.
    """
    logs = np.array([math.log(median(per_call_ns(masked)) / median(per_call_ns(shrunk))) for masked, shrunk in blocks])
    if logs.size == 0:
        return None
    centre = float(logs.mean())
    if logs.size == 1:
        return RatioSummary(math.exp(centre), None, None, 1)
    drawn = np.random.default_rng(seed).integers(0, logs.size, size=(RATIO_RESAMPLES, logs.size))
    low, high = expand_interval(logs[drawn].mean(axis=1), centre, int(logs.size))
    return RatioSummary(math.exp(centre), low, high, int(logs.size))


def expand_interval(resampled_logs: Array, centre_log: float, n: int) -> tuple[float, float]:
    """The 95 % percentile interval of a bootstrap on the log scale, widened for n independent draws, as plain ratios.

    A percentile bootstrap is too narrow for small n: resampling divides by n, not n - 1, and takes normal, not t
    quantiles; of 3 blocks it covers at most 75 %. Both ends are moved away from the centre by
    t(n-1, 0.975) / 1.96 * sqrt(n / (n-1)).

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), the
    expanded percentile interval. He moves the percentiles asked for; with 3 blocks those lie beyond the last resample,
    so the ends themselves are moved.
    """
    low, high = np.quantile(resampled_logs, [0.025, 0.975])
    factor = t_quantile_975(n - 1) / 1.959963984540054 * math.sqrt(n / (n - 1))
    # a bootstrap that lies to one side of its centre still gives an interval that holds it
    below, above = max(centre_log - low, 0.0), max(high - centre_log, 0.0)
    return math.exp(centre_log - factor * below), math.exp(centre_log + factor * above)


def t_quantile_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t with `degrees` >= 1 degrees of freedom, to 1e-9.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4 (the distribution for whole degrees of freedom), bisected.

    >>> round(t_quantile_975(2), 4)
    4.3027
    """
    low, high = 1.9, 13.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def verdict(ratio: RatioSummary | None) -> Verdict:
    """What a speed-up says: "faster" or "slower", "no change" when the interval holds 1, "unknown" without one."""
    if ratio is None or ratio.ci_low is None or ratio.ci_high is None:
        return "unknown"
    if ratio.ci_low > 1.0:
        return "faster"
    return "slower" if ratio.ci_high < 1.0 else "no change"


def _t_within(t: float, degrees: int) -> float:
    """P(-t < T < t) for Student's T."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine_squared = math.cos(angle) ** 2
    if degrees % 2 == 0:
        term = total = 1.0
        for k in range(1, degrees // 2):
            term *= cosine_squared * (2 * k - 1) / (2 * k)
            total += term
        return math.sin(angle) * total
    if degrees == 1:
        return 2 * angle / math.pi
    term = total = math.cos(angle)
    for k in range(1, (degrees - 1) // 2):
        term *= cosine_squared * 2 * k / (2 * k + 1)
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total)


def _hierarchical_medians(arrays: list[Array], generator: np.random.Generator) -> Array:
    """Medians of resamples, float64 [LATENCY_RESAMPLES], in chunks that keep memory in bounds."""
    lengths = np.array([array.size for array in arrays])
    padded = np.zeros((len(arrays), lengths.max()))
    for row, array in zip(padded, arrays, strict=True):
        row[: array.size] = array
    width = len(arrays) * int(lengths.max())
    rows = max(1, min(LATENCY_RESAMPLES, _RESAMPLES_A_CHUNK // width))
    medians: list[Array] = []
    for start in range(0, LATENCY_RESAMPLES, rows):
        count = min(rows, LATENCY_RESAMPLES - start)
        drawn = generator.integers(0, len(arrays), size=(count, len(arrays)))
        sizes = lengths[drawn][..., None]
        places = (generator.random((count, len(arrays), lengths.max())) * sizes).astype(np.intp)
        values = padded[drawn[..., None], places]
        if (lengths != lengths[0]).any():
            # a shorter launch gives only as many samples as it has
            surplus = np.arange(lengths.max()) >= sizes
            medians.append(np.nanmedian(np.where(surplus, np.nan, values).reshape(count, -1), axis=1))
        else:
            medians.append(np.median(values.reshape(count, -1), axis=1))
    return np.concatenate(medians)
