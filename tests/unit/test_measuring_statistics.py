"""Statistics against fixed sequences, numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from edgeprune.errors import UserError
from edgeprune.measuring import (
    FLAG_MEANINGS,
    RatioSummary,
    cell_latency,
    drift,
    flags,
    median,
    outliers,
    p90,
    paired_ratio,
    per_call_ns,
    realised,
    theoretical_speedup_filters,
    theoretical_speedup_macs,
    unpaired_ratio,
    verdict,
)
from edgeprune.measuring.statistics import expand_interval, t_quantile_975
from edgeprune.schema import Launch, Reading

HOT = [Reading(t_ns=0, throttled=False), Reading(t_ns=1, throttled=True)]


def launch(samples_ns: list[int], group: int = 1, **fields: object) -> Launch:
    plain: dict[str, object] = {
        "session_id": "s", "cell_id": "c", "purpose": "latency", "block": 0, "unit": "u", "order": 0,
        "started_at": "2026-01-01T00:00:00Z", "cores": None, "group": group, "warmup_ns": [], "steady": True,
        "samples_ns": samples_ns, "parity_rel": None, "peak_rss_bytes": None,
    }  # fmt: skip
    return Launch.model_validate(plain | fields)


def noisy_launch(generator: np.random.Generator, level: float, n: int = 64) -> Launch:
    """A launch of its own level (4 % between launches) with 1 % noise inside, nanoseconds."""
    own = level * math.exp(generator.normal(0, 0.04))
    return launch([round(own * 1e6 * math.exp(generator.normal(0, 0.01))) for _ in range(n)])


def test_per_call_time_divides_by_the_group() -> None:
    assert per_call_ns(launch([1000, 3000], group=10)).tolist() == [100.0, 300.0]


def test_median_and_p90_equal_numpy_and_p90_needs_1024_samples() -> None:
    values = np.random.default_rng(0).lognormal(size=1024)
    assert median(values) == np.sort(values)[511:513].mean()
    assert p90(values) == pytest.approx(scipy.stats.mstats.mquantiles(values, 0.9, alphap=1, betap=1)[0], rel=1e-12)
    assert p90(values[:1023]) is None
    with pytest.raises(ValueError, match="no samples"):
        median([])


def test_a_p90_is_one_of_calls_never_of_means_of_groups() -> None:
    samples = list(range(1, 1025))
    single = cell_latency([launch(samples[:512]), launch(samples[512:])])
    assert single is not None
    assert single.p90 == pytest.approx(np.percentile(samples, 90))
    grouped = cell_latency([launch(samples[:512]), launch(samples[512:], group=2)])
    assert grouped is not None
    assert (grouped.samples, grouped.p90) == (1024, None)
    few = cell_latency([launch(samples[1:])])
    assert few is not None
    assert few.p90 is None


def test_outliers_are_those_beyond_ten_sigma_by_the_mad() -> None:
    values = np.random.default_rng(1).normal(1000, 10, 200)
    values[[17, 90]] = 1200, 700
    spread = scipy.stats.median_abs_deviation(values, scale="normal")
    expected = np.flatnonzero(abs(values - np.median(values)) / spread > 14.8 / scipy.stats.norm.ppf(0.75) ** -1)
    assert outliers(values).tolist() == expected.tolist() == [17, 90]
    assert outliers([1000.0] * 30 + [1010.0, 1020.0]).tolist() == [31]
    assert outliers([]).size == 0


def test_drift_compares_the_medians_of_the_first_and_the_last_quarter() -> None:
    assert drift(np.linspace(100, 120, 9)) == pytest.approx((118.75 - 101.25) / 101.25)
    assert drift([100.0, 900.0, 100.0, 100.0] * 5) == 0.0
    assert drift([1.0] * 7) is None


def test_t_quantiles_equal_scipy() -> None:
    for degrees in [*range(1, 41), 99, 500]:
        assert t_quantile_975(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=1e-8)


def test_the_interval_is_widened_by_t_and_by_n_over_n_minus_1() -> None:
    logs = np.random.default_rng(2).normal(0.3, 0.01, 10_000)
    low, high = expand_interval(logs, 0.3, n=6)
    factor = scipy.stats.t.ppf(0.975, 5) / scipy.stats.norm.ppf(0.975) * math.sqrt(6 / 5)
    assert math.log(low) == pytest.approx(0.3 - factor * (0.3 - np.quantile(logs, 0.025)), abs=1e-9)
    assert math.log(high) == pytest.approx(0.3 + factor * (np.quantile(logs, 0.975) - 0.3), abs=1e-9)


def test_a_latency_pools_the_samples_of_all_launches() -> None:
    summary = cell_latency([launch([10, 20, 30], group=10), launch([40, 50], group=10), launch([], purpose="memory")])
    assert summary is not None
    assert (summary.median, summary.samples, summary.launches, summary.p90) == (3.0, 5, 2, None)
    assert summary.ci_low is not None
    assert summary.ci_high is not None
    assert summary.ci_low <= summary.median <= summary.ci_high
    assert cell_latency([launch([], purpose="memory")]) is None
    one = cell_latency([launch([10, 20, 30])])
    assert cell_latency([launch([10, 20, 30]), launch([90] * 9, readings=HOT)]) == one
    assert one is not None
    assert (one.ci_low, one.ci_high) == (None, None)


def test_equal_samples_give_the_same_interval_again_and_a_narrow_one() -> None:
    generator = np.random.default_rng(3)
    launches = [noisy_launch(generator, 2.0) for _ in range(6)]
    assert cell_latency(launches) == cell_latency(launches)
    flat = cell_latency([launch([500] * 64)] * 3)
    assert flat is not None
    assert (flat.ci_low, flat.ci_high) == (pytest.approx(500.0), pytest.approx(500.0))


@pytest.mark.parametrize("count", [3, 6, 10])
def test_the_latency_interval_covers_the_true_median(count: int) -> None:
    generator = np.random.default_rng(count)
    hits = 0
    for _ in range(120):
        summary = cell_latency([noisy_launch(generator, 2.0, n=16) for _ in range(count)])
        assert summary is not None
        assert summary.ci_low is not None
        assert summary.ci_high is not None
        hits += summary.ci_low <= 2e6 <= summary.ci_high
    assert hits / 120 >= 0.88


def test_the_ratio_is_the_geometric_mean_over_blocks_of_ratios_of_medians() -> None:
    blocks = [(launch([200, 400, 900]), launch([100])), (launch([300]), launch([200, 100, 300], group=2))]
    summary = paired_ratio(blocks)
    assert summary is not None
    assert summary.ratio == pytest.approx(scipy.stats.gmean([4.0, 3.0]))
    assert summary.blocks == 2
    single = paired_ratio(blocks[:1])
    assert single == RatioSummary(pytest.approx(4.0), None, None, 1)  # type: ignore[arg-type]
    assert paired_ratio([]) is None


def test_a_throttled_launch_says_nothing_of_what_changed_between_runs() -> None:
    before, after = [launch([400]), launch([440])], [launch([200]), launch([220])]
    assert unpaired_ratio(before, [*after, launch([900], readings=HOT)]) == unpaired_ratio(before, after)
    assert unpaired_ratio(before, [launch([900], readings=HOT)]) is None


def test_what_moves_both_partners_of_a_block_alike_leaves_the_interval_narrow() -> None:
    generator = np.random.default_rng(4)
    blocks = []
    for _ in range(6):
        slow = generator.uniform(1, 3)
        blocks.append(tuple(launch([round(level * slow * 1e6)] * 3) for level in (2.0, 1.0)))
    summary = paired_ratio(blocks)  # type: ignore[arg-type]
    assert summary is not None
    assert (summary.ratio, summary.ci_low, summary.ci_high) == pytest.approx((2.0, 2.0, 2.0), rel=1e-5)


@pytest.mark.parametrize(("count", "least"), [(3, 0.92), (6, 0.92), (10, 0.92)])
def test_the_ratio_interval_covers_the_truth_about_95_times_in_100(count: int, least: float) -> None:
    generator = np.random.default_rng(10 + count)
    hits = []
    for _ in range(400):
        ratios = 1.6 * np.exp(generator.normal(0, 0.05, count))
        summary = paired_ratio([(launch([round(ratio * 1e6)]), launch([1_000_000])) for ratio in ratios])
        assert summary is not None
        assert summary.ci_low is not None
        assert summary.ci_high is not None
        hits.append(summary.ci_low <= 1.6 <= summary.ci_high)
        exact = scipy.stats.t.interval(0.95, count - 1, np.log(ratios).mean(), scipy.stats.sem(np.log(ratios)))
        # no wider than twice the exact interval of normal logarithms: covering by being useless does not count
        assert math.log(summary.ci_high / summary.ci_low) < 2 * (exact[1] - exact[0])
    assert np.mean(hits) >= least


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1.01, 1.5, "faster"), (0.5, 0.99, "slower"), (0.9, 1.1, "no change"), (1.0, 1.2, "no change"),
     (None, None, "unknown")],
)  # fmt: skip
def test_verdicts(low: float | None, high: float | None, word: str) -> None:
    assert verdict(RatioSummary(1.0, low, high, 3)) == word
    assert verdict(None) == "unknown"


def test_realised_is_the_quotient_of_logarithms() -> None:
    assert realised(3.0, 3.0) == 1.0
    assert realised(1.0, 3.0) == 0.0
    assert realised(0.5, 4.0) == -0.5
    assert realised(1.3, 1.005) is None
    assert realised(1.3, float("nan")) is None


def test_theoretical_speedups() -> None:
    assert theoretical_speedup_filters(0.0) == 1.0
    assert theoretical_speedup_filters(0.75) == 4.0
    assert theoretical_speedup_filters(1.0) == math.inf
    assert theoretical_speedup_macs(90, 45) == 2.0
    assert theoretical_speedup_macs(90, 0) is None
    assert theoretical_speedup_macs(0, 90) is None
    for ratio in (1.1, -0.5, float("nan")):
        with pytest.raises(UserError, match="ratio"):
            theoretical_speedup_filters(ratio)


def test_a_quiet_cell_earns_no_flags() -> None:
    quiet = [launch([1000, 1001, 999, 1000] * 16) for _ in range(3)]
    assert flags(quiet, cell_latency(quiet), planned_launches=3) == []


def test_each_flag_is_earned_by_what_it_means() -> None:
    flat = [1000, 1001, 999, 1000] * 16
    rising = [1000 + 2 * i for i in range(64)]
    spiked = [*flat[:-1], 9000]
    cases = {
        "unsteady": [launch(flat), launch(flat), launch(flat, steady=False)],
        "outliers": [launch(flat), launch(flat), launch(spiked)],
        "drift": [launch(rising), launch(rising), launch(rising)],
        "throttled": [launch(flat), launch(rising, readings=HOT, steady=False), launch(flat), launch(flat)],
        "few-blocks": [launch(flat), launch(flat)],
        "noisy": [launch(flat), launch([value * 2 for value in flat]), launch(flat)],
    }
    assert list(cases) == list(FLAG_MEANINGS)
    for name, launches in cases.items():
        assert flags(launches, cell_latency(launches), planned_launches=3) == [name]
    assert flags([], None, planned_launches=3) == []
    assert flags([launch(flat)] * 4, None, planned_launches=6) == ["few-blocks"]
