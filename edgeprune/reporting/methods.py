"""What each pruning method made of each network, side by side: how much is gone, what is right, what is faster.

A row is one recipe: a method at a ratio. Shares are of the dense network, so that filters, parameters, MACs and latency
can be laid over each other. Start with `method_rows`; `front` says which rows no other beats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeprune.reporting import wording
from edgeprune.reporting.results import CellResult, PairResult, Results
from edgeprune.schema import NetworkKey

CLOSE = 0.02
"""An accuracy that is at most so far below the dense network's counts as kept."""
COMPARING = frozenset({"pareto", "methods"})
LINES_APART = 4


@dataclass(frozen=True)
class MethodRow:
    """One recipe on one network.

    Args:
        key: The shrunk network's.
        accuracy: Of the shrunk network, 0 to 1.
        lost: The dense network's accuracy less that.
        filters_gone: Masked filters over those that can be pruned; of other structures where the method prunes those.
        zeros: Share of the dense network's parameters that pruning set to zero.
        parameters_gone: Share of the dense network's parameters that the shrunk network does without.
        macs_gone: The same of MACs.
        latency_gone: One less the shrunk over the dense network's median latency, by setting; below 0 if slower.
        pairs: Masked against shrunk, by setting.
    """

    key: NetworkKey
    accuracy: float
    lost: float
    filters_gone: float
    zeros: float
    parameters_gone: float
    macs_gone: float
    latency_gone: Mapping[wording.Setting, float]
    pairs: Mapping[wording.Setting, PairResult]

    @property
    def keeps(self) -> bool:
        """Whether the accuracy is within `CLOSE` of the dense network's."""
        # of 360 images and the like, shares are whole numbers of images: no rounding may turn the answer
        return self.lost <= CLOSE + 1e-9


def method_rows(results: Results) -> tuple[MethodRow, ...]:
    """A row for each recipe whose dense, masked and shrunk networks are built, in the order of the matrix.

    None where all recipes are of one method: there is nothing to compare.
    """
    built = {network.key.network_id: network for network in results.networks}
    place = {key: number for number, key in enumerate(_asked(results))}
    cells: dict[NetworkKey, list[CellResult]] = {}
    for cell in results.timed:
        cells.setdefault(cell.key.network, []).append(cell)
    pairs: dict[NetworkKey, list[PairResult]] = {}
    for pair in results.pairs:
        pairs.setdefault(pair.key.network, []).append(pair)
    rows = []
    for shrunk in results.networks:
        dense = results.dense(shrunk.key)
        masked = built.get(shrunk.key.model_copy(update={"variant": "masked"}).network_id)
        if shrunk.key.variant != "shrunk" or dense is None or masked is None:
            continue
        before = _latencies(cells.get(dense.key, []))
        after = _latencies(cells.get(shrunk.key, []))
        rows.append(
            MethodRow(
                key=shrunk.key,
                accuracy=shrunk.accuracy,
                lost=dense.accuracy - shrunk.accuracy,
                filters_gone=masked.pruned_filters / masked.filters if masked.filters else 0.0,
                zeros=1.0 - masked.nonzero_params / dense.nonzero_params,
                parameters_gone=1.0 - shrunk.params / dense.params,
                macs_gone=1.0 - shrunk.macs / dense.macs,
                latency_gone={one: 1.0 - after[one] / before[one] for one in before if one in after},
                pairs={wording.setting(pair.key): pair for pair in pairs.get(shrunk.key, [])},
            )
        )
    if len({row.key.method for row in rows}) < 2:
        return ()
    return tuple(sorted(rows, key=lambda row: place.get(row.key, len(place))))


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: the places of those for which no other has as much of both, and more of one.

    In the order of rising x, so of falling y. Of equal points the first stands for all.

    >>> front([(0.1, 0.9), (0.5, 0.8), (0.4, 0.7), (0.5, 0.6)])
    [0, 1]
    """
    best = float("-inf")
    found = []
    for number in sorted(range(len(points)), key=lambda one: (-points[one][0], -points[one][1])):
        if points[number][1] > best:
            best = points[number][1]
            found.append(number)
    return found[::-1]


def fitting(results: Results, figures: Collection[str]) -> list[str]:
    """Which of these figures suit the results.

    Of one method there is nothing to compare: "pareto" and "methods" are for several. The others tell methods by the
    style of lines, of which there are `LINES_APART`: with more recipes than that they are left out.
    """
    recipes = {(one.key.method, one.key.seed) for one in results.networks if one.key.variant != "dense"}
    left_out: frozenset[str] = frozenset()
    if not method_rows(results):
        left_out = COMPARING
    elif len(recipes) > LINES_APART:
        left_out = frozenset(figures) - COMPARING
    return [name for name in figures if name not in left_out]


def settings_of(rows: Sequence[MethodRow]) -> list[wording.Setting]:
    """The settings on which any of the rows has a pair, in their order."""
    return list(dict.fromkeys(one for row in rows for one in row.pairs))


def by_model(rows: Sequence[MethodRow]) -> dict[tuple[str, str], list[MethodRow]]:
    """Rows of one model on one dataset together."""
    found: dict[tuple[str, str], list[MethodRow]] = {}
    for row in rows:
        found.setdefault((row.key.model, row.key.dataset), []).append(row)
    return found


def _asked(results: Results) -> list[NetworkKey]:
    return list(dict.fromkeys(key.network for key in results.manifest.keys()))  # noqa: SIM118 - no mapping


def _latencies(cells: Sequence[CellResult]) -> dict[wording.Setting, float]:
    return {wording.setting(cell.key): cell.latency.median for cell in cells if cell.latency is not None}
