"""The change between two runs, against scipy's Welch test, and the refusal to mix devices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeprune.errors import ResultsError
from edgeprune.measuring import unpaired_ratio
from edgeprune.reporting import compare
from edgeprune.schema import DeviceFacts, Launch
from tests.unit import sample_run

LATENCIES = st.lists(st.integers(100, 10_000), min_size=2, max_size=8)


def launches(medians: list[int]) -> list[Launch]:
    return [
        Launch(
            session_id="s", cell_id="c", purpose="latency", block=number, unit="u", order=0, started_at="", cores=None,
            group=1, warmup_ns=[], steady=True, samples_ns=[value] * 3, parity_rel=0.0, peak_rss_bytes=None,
        )
        for number, value in enumerate(medians)
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Precision loss occurred:RuntimeWarning")  # scipy's, for nearly equal samples
@given(before=LATENCIES, after=LATENCIES)
def test_the_ratio_is_welch_s_on_logarithms(before: list[int], after: list[int]) -> None:
    got = unpaired_ratio(launches(before), launches(after))
    logs = [np.log(side) for side in (before, after)]
    assert got is not None
    assert got.ratio == pytest.approx(math.exp(logs[0].mean() - logs[1].mean()))
    parts = [float(side.var(ddof=1)) / side.size for side in logs]
    if sum(parts) > 1e-12:
        degrees = stats.ttest_ind(*logs, equal_var=False).df
        half = stats.t.ppf(0.975, max(1, math.floor(degrees + 1e-9))) * math.sqrt(sum(parts))
        if abs(degrees - round(degrees)) > 1e-6:
            assert got.ci_low == pytest.approx(got.ratio * math.exp(-half), rel=1e-6)
            assert got.ci_high == pytest.approx(got.ratio * math.exp(half), rel=1e-6)


def test_a_single_launch_has_no_interval() -> None:
    got = unpaired_ratio(launches([200]), launches([100, 101]))
    assert got is not None
    assert got.ratio == pytest.approx(2.0, rel=0.01)
    assert got.ci_low is None
    assert unpaired_ratio([], launches([1])) is None


def test_a_run_compared_with_itself_has_not_changed(tmp_path: Path) -> None:
    folder = sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"], [0.5], ["tvm"]))
    changes = compare(folder, folder)
    assert len(changes) == 3
    for change in changes:
        assert change.verdict == "no change"
        assert change.same_network
        assert change.before_ns == change.after_ns


def test_devices_are_not_mixed_silently(tmp_path: Path) -> None:
    made = sample_run.records(["lenet5"], [0.5], ["tvm"])
    here = sample_run.write_run(tmp_path / "here", made)
    moved = []
    for one in made:
        facts = (
            one.model_copy(update={"facts": one.facts | {"processor": "other"}})
            if isinstance(one, DeviceFacts)
            else one
        )
        moved.append(facts)
    there = sample_run.write_run(tmp_path / "there", moved)
    with pytest.raises(ResultsError, match="another machine") as caught:
        compare(here, there)
    assert "--across-devices" in (caught.value.hint or "")
    assert len(compare(here, there, across_devices=True)) == 3


def test_runs_with_nothing_in_common_are_told(tmp_path: Path) -> None:
    here = sample_run.write_run(tmp_path / "here", sample_run.records(["lenet5"], [0.5], ["tvm"]))
    there = sample_run.write_run(tmp_path / "there", sample_run.records(["resnet20"], [0.5], ["tvm"]))
    with pytest.raises(ResultsError, match="no measured cell in common"):
        compare(here, there)
