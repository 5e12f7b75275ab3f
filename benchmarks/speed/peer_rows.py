"""Latencies of compile.md: a row for each network, form, number of threads and runtime. Start with `Row`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peer_runtimes import PEERS

from edgeprune.measuring.statistics import expand_interval

RESAMPLES = 10_000
GOAL_MEAN, GOAL_EACH = 1.0, 1.2
"""Largest geometric mean, and largest ratio of one network, of our latency by the best peer's."""

Unit = tuple[str, str, int]
"""What is timed in one interleaved run: network, form, threads."""


@dataclass(frozen=True)
class Row:
    """One runtime's latencies of a network.

    Attributes:
        network: Its name.
        form: "dense" or "shrunk".
        threads: Of the runtime.
        runtime: Of `peer_runtimes.RUNTIMES`.
        version: Its version, and that of what it stands on.
        code: Of edgeprune's compiler, the same for all rows of a unit.
        status: "ok", "wrong" (another answer than ONNX Runtime's: not timed) or "failed".
        reason: Why it is not ok.
        difference: Largest difference to ONNX Runtime's answer by its largest number.
        round_ms: Latency in each round, in the rounds' order.
    """

    network: str
    form: str
    threads: int
    runtime: str
    version: str
    code: str
    status: str
    reason: str = ""
    difference: float | None = None
    round_ms: tuple[float, ...] = ()

    @property
    def unit(self) -> Unit:
        """The run that it is of."""
        return self.network, self.form, self.threads

    @property
    def latency_ms(self) -> float:
        """Median over rounds."""
        return median(self.round_ms)


def read(path: Path) -> list[Row]:
    """The rows of an earlier run."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: Mapping[str, str]) -> Row:
    values: dict[str, Any] = dict(line)
    values["threads"] = int(line["threads"])
    values["difference"] = float(line["difference"]) if line["difference"] else None
    values["round_ms"] = tuple(map(float, line["round_ms"].split()))
    return Row(**values)


def write(rows: Sequence[Row], path: Path) -> None:
    """One line a row, under the names of `Row`; latencies with five digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), "round_ms": " ".join(f"{taken:.5g}" for taken in row.round_ms)})


@dataclass(frozen=True)
class Ratio:
    """A quotient of latencies, or the geometric mean of some, with its 95 % interval; None where rounds are too few."""

    middle: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.middle:.2f}" + ("" if self.low is None else f" ({self.low:.2f} - {self.high:.2f})")


def against(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Ratio:
    """Geometric mean over networks of ours by theirs.

    A network counts as the geometric mean over rounds, in each of which both were timed. The interval is a bootstrap
    over rounds, for each network its own, expanded for the fewest rounds (`expand_interval`): it says how much another
    run would differ, not other networks.

    Args:
        pairs: For each network (ours, theirs), a latency a round.
    """
    logs = [np.log(np.array(ours) / np.array(theirs)) for ours, theirs in pairs]
    centre = float(np.mean([one.mean() for one in logs]))
    rounds = min(map(len, logs))
    if rounds < 2:
        return Ratio(math.exp(centre))
    generator = np.random.default_rng(0)
    drawn = np.mean([generator.choice(one, (RESAMPLES, len(one))).mean(axis=1) for one in logs], axis=0)
    return Ratio(math.exp(centre), *expand_interval(drawn, centre, rounds))


def by_unit(rows: Sequence[Row]) -> dict[Unit, dict[str, Row]]:
    """The rows of each unit by runtime."""
    units: dict[Unit, dict[str, Row]] = {}
    for row in rows:
        units.setdefault(row.unit, {})[row.runtime] = row
    return units


def best_peer(unit: Mapping[str, Row]) -> Row | None:
    """The fastest of the peers that answer right, by the median."""
    right = [unit[name] for name in PEERS if name in unit and unit[name].status == "ok"]
    return min(right, key=lambda row: row.latency_ms, default=None)


def quotients(units: Mapping[Unit, Mapping[str, Row]], runtime: str, form: str, threads: int) -> dict[str, Ratio]:
    """Each network's latency in one of our runtimes by its best peer's."""
    return {name: against([pair]) for name, pair in _pairs(units, runtime, form, threads).items()}


def mean_quotient(units: Mapping[Unit, Mapping[str, Row]], runtime: str, form: str, threads: int) -> Ratio | None:
    """The geometric mean of `quotients`; None without any."""
    pairs = _pairs(units, runtime, form, threads)
    return against(list(pairs.values())) if pairs else None


def _pairs(
    units: Mapping[Unit, Mapping[str, Row]], runtime: str, form: str, threads: int
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    found: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for (network, its_form, its_threads), unit in units.items():
        ours, best = unit.get(runtime), best_peer(unit)
        if (its_form, its_threads) == (form, threads) and ours and ours.status == "ok" and best:
            found[network] = (ours.round_ms, best.round_ms)
    return found
