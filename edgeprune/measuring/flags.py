"""What a reader has to know of a measurement before trusting it.

Flags never change a figure and never drop a sample; that a throttled launch does not count is the rule of `timed`.
`FLAG_MEANINGS` holds every flag with its meaning, in the order in which they are written; `flags` says which a cell
earns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgeprune.measuring.statistics import DRIFT_LIMIT, LatencySummary, drift, outliers, per_call_ns, timed
from edgeprune.measuring.thermal import throttled_window
from edgeprune.schema import Launch

NOISY_HALF_INTERVAL = 0.05
FEW_BLOCKS = 3

FLAG_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "unsteady": "warm-up was given up: the last 20 samples before measuring did not settle in at least one launch",
        "outliers": "at least one sample lies further than 14.8 median absolute deviations from its launch's median",
        "drift": "in at least one launch the last quarter of the samples is more than 5 % slower or faster than the "
        "first",
        "throttled": "the device lowered its clock for heat or power during a launch, which is left out and made again",
        "few-blocks": "fewer launches than the plan asks for, or fewer than 3: the interval is wide or missing",
        "noisy": "half of the 95 % interval is more than 5 % of the median latency",
    }
)


def flags(launches: Sequence[Launch], latency: LatencySummary | None, planned_launches: int) -> list[str]:
    """The flags a cell earns, in the order of `FLAG_MEANINGS`.

    Args:
        launches: All launches of the cell; `throttled` looks at all that timed, the other tests at those that count.
        latency: Their `cell_latency`, None where there are no samples.
        planned_launches: Launches the plan asks for.
    """
    counted = timed(launches)
    samples = [per_call_ns(launch) for launch in counted]
    drifts = [change for change in map(drift, samples) if change is not None]
    noisy = (
        latency is not None
        and latency.ci_low is not None
        and latency.ci_high is not None
        and (latency.ci_high - latency.ci_low) / 2 > NOISY_HALF_INTERVAL * latency.median
    )
    earned = {
        "unsteady": any(launch.steady is False for launch in counted),
        "outliers": any(outliers(values).size > 0 for values in samples),
        "drift": any(abs(change) > DRIFT_LIMIT for change in drifts),
        "throttled": any(throttled_window(one.readings) for one in launches if one.purpose == "latency"),
        "few-blocks": bool(samples) and len(samples) < max(planned_launches, FEW_BLOCKS),
        "noisy": noisy,
    }
    return [name for name in FLAG_MEANINGS if earned[name]]
