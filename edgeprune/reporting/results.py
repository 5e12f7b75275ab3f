"""A results folder as a whole: what was asked for, what was finished, and what the samples say.

`load` reads `manifest.json` and `journal.jsonl` and nothing else, and brings launches, networks and ends together into
one `CellResult` a finished cell and one `PairResult` a masked/shrunk pair that was timed. Tables, figures and the page
are made from these. Start with `load`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import journal
from edgeprune.manifest import Manifest
from edgeprune.manifest import read as read_manifest
from edgeprune.measuring import (
    LatencySummary,
    RatioSummary,
    cell_latency,
    flags,
    paired_ratio,
    realised,
    theoretical_speedup_filters,
    theoretical_speedup_macs,
    timed,
    verdict,
)
from edgeprune.schema import CellEnd, CellKey, DeviceFacts, Launch, Network, NetworkKey, Variant


@dataclass(frozen=True)
class CellResult:
    """One finished cell: how it ended, its network, its launches and what their samples say.

    `launches` are all that the journal holds; `latency` and `flags`, of cells that ended ok, come from those that count
    (`measuring.timed`). `network` is None where building it failed.
    """

    end: CellEnd
    network: Network | None
    launches: tuple[Launch, ...]
    latency: LatencySummary | None
    flags: tuple[str, ...]

    @property
    def key(self) -> CellKey:
        return self.end.key

    @property
    def ok(self) -> bool:
        return self.end.status == "ok"


@dataclass(frozen=True)
class PairResult:
    """A masked and a shrunk cell of a timed device that both ended ok, and their speed-up: promised and real."""

    masked: CellResult
    shrunk: CellResult
    theoretical_filters: float
    theoretical_macs: float | None
    ratio: RatioSummary | None

    @property
    def key(self) -> CellKey:
        """The key of the shrunk cell; the masked one differs in its variant alone."""
        return self.shrunk.key

    @property
    def pruning_ratio(self) -> float:
        """Fraction of filters that was to be removed; that was removed, where layers had ratios of their own."""
        ratio = self.key.network.pruning_ratio
        return 1.0 - 1.0 / self.theoretical_filters if ratio is None else ratio

    @property
    def realised(self) -> float | None:
        """The part of the promise by MACs that is real; None where either side is unknown or nothing is promised."""
        if self.ratio is None or self.theoretical_macs is None:
            return None
        return realised(self.ratio.ratio, self.theoretical_macs)

    @property
    def verdict(self) -> str:
        return verdict(self.ratio)


@dataclass(frozen=True)
class Results:
    """Everything a report is made of; cells and pairs in the order of the matrix."""

    folder: Path
    manifest: Manifest
    devices: Mapping[str, Mapping[str, Any]]
    networks: tuple[Network, ...]
    cells: tuple[CellResult, ...]
    pairs: tuple[PairResult, ...]
    unfinished: tuple[CellKey, ...]
    problems: tuple[str, ...]

    @property
    def timed(self) -> tuple[CellResult, ...]:
        """The cells of devices that are timed: all but emulated and simulated ones."""
        return tuple(cell for cell in self.cells if self.is_timed(cell.key))

    @property
    def counts_instructions(self) -> bool:
        """Whether the matrix names an emulated device."""
        return any(not self.is_timed(key) and not key.is_simulated for key in self._keys)

    @property
    def counts_cycles(self) -> bool:
        """Whether the matrix names a simulated accelerator."""
        return any(key.is_simulated for key in self._keys)

    @property
    def _keys(self) -> tuple[CellKey, ...]:
        return (*(cell.key for cell in self.cells), *self.unfinished)

    def is_timed(self, key: CellKey) -> bool:
        """Whether the cell's device is a real one: neither emulated nor simulated, by name or by its own facts."""
        if key.is_simulated:
            return False
        return not key.is_emulated and not self.devices.get(key.device, {}).get("emulated")

    def dense(self, key: NetworkKey) -> Network | None:
        """The dense network that `key` was pruned from: of the same seed if there is one, else of any."""
        return _dense(self.networks, key)


def load(results_dir: Path | str) -> Results:
    """Read a results folder.

    Raises:
        ResultsError: The folder, its manifest or its journal is missing, unreadable, or of a newer edgeprune.

    Example: `load("results/quickstart").pairs[0].verdict`
    """
    folder = Path(results_dir)
    manifest = read_manifest(folder)
    asked = manifest.keys()
    contents = journal.read(folder / journal.JOURNAL_NAME)

    networks: dict[str, Network] = {}
    ends: dict[str, CellEnd] = {}
    launches: dict[str, list[Launch]] = defaultdict(list)
    devices: dict[str, Mapping[str, Any]] = dict(manifest.devices)
    for record in contents.records:
        # of networks, ends and facts the last word counts; of launches every one
        if isinstance(record, Network):
            networks[record.key.network_id] = record
        elif isinstance(record, CellEnd):
            ends[record.cell_id] = record
        elif isinstance(record, Launch):
            launches[record.cell_id].append(record)
        elif isinstance(record, DeviceFacts):
            devices[record.device] = record.facts

    place = {key.cell_id: number for number, key in enumerate(asked)}
    planned = int(manifest.plan.get("launches", 0))
    finished = sorted(ends.values(), key=lambda end: place.get(end.cell_id, len(place)))
    cells = tuple(
        _cell(end, networks.get(end.key.network.network_id), launches[end.cell_id], planned) for end in finished
    )
    known = tuple(networks.values())
    return Results(
        folder=folder,
        manifest=manifest,
        devices=devices,
        networks=known,
        cells=cells,
        pairs=_pairs(cells, known),
        unfinished=tuple(key for key in asked if key.cell_id not in ends),
        problems=contents.problems,
    )


def _cell(end: CellEnd, network: Network | None, launches: Sequence[Launch], planned: int) -> CellResult:
    if end.status != "ok":
        return CellResult(end, network, tuple(launches), None, ())
    latency = cell_latency(launches)
    return CellResult(end, network, tuple(launches), latency, tuple(flags(launches, latency, planned)))


def _pairs(cells: Sequence[CellResult], networks: Sequence[Network]) -> tuple[PairResult, ...]:
    by_id = {cell.end.cell_id: cell for cell in cells if cell.ok}
    pairs = []
    for shrunk in by_id.values():
        if shrunk.key.network.variant != "shrunk" or shrunk.key.is_emulated or shrunk.key.is_simulated:
            continue
        masked = by_id.get(_with_variant(shrunk.key, "masked").cell_id)
        if masked is None:
            continue
        pairs.append(
            PairResult(
                masked=masked,
                shrunk=shrunk,
                theoretical_filters=theoretical_speedup_filters(_removed(masked)),
                theoretical_macs=_theoretical_macs(masked, shrunk, networks),
                ratio=paired_ratio(_shared_blocks(masked.launches, shrunk.launches)),
            )
        )
    return tuple(pairs)


def _removed(masked: CellResult) -> float:
    """The part of the filters that is gone: the ratio, up to rounding in each layer; of weights, what they emptied."""
    network, ratio = masked.network, masked.key.network.pruning_ratio
    if network is None or not network.filters:
        return ratio or 0.0
    if ratio is not None and abs(network.pruned_filters - ratio * network.filters) <= len(network.layers) / 2:
        return ratio
    return network.pruned_filters / network.filters


def _with_variant(key: CellKey, variant: Variant) -> CellKey:
    return key.model_copy(update={"network": key.network.model_copy(update={"variant": variant})})


def _shared_blocks(masked: Sequence[Launch], shrunk: Sequence[Launch]) -> list[tuple[Launch, Launch]]:
    """Launches that ran back to back: those whose session, block and unit are equal.

    Launches left without a partner by an interrupted run, or by a throttled one, count in their own cell only.
    """

    def placed(launches: Sequence[Launch]) -> dict[tuple[str, int, str], Launch]:
        return {(launch.session_id, launch.block, launch.unit): launch for launch in timed(launches)}

    ours, theirs = placed(masked), placed(shrunk)
    return [(ours[place], theirs[place]) for place in ours if place in theirs]


def _theoretical_macs(masked: CellResult, shrunk: CellResult, networks: Sequence[Network]) -> float | None:
    """MACs(dense) / MACs(shrunk); a masked network keeps all shapes, so its MACs stand in for missing dense ones."""
    full = _dense(networks, shrunk.key.network) or masked.network
    if full is None or shrunk.network is None:
        return None
    return theoretical_speedup_macs(full.macs, shrunk.network.macs)


def _dense(networks: Sequence[Network], key: NetworkKey) -> Network | None:
    same = [
        network
        for network in networks
        if network.key.variant == "dense" and (network.key.model, network.key.dataset) == (key.model, key.dataset)
    ]
    return next((network for network in same if network.key.seed == key.seed), same[0] if same else None)
