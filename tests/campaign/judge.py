"""What a campaign's results folder must hold: everything once, with the numbers of a run without faults."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune import journal
from edgeprune.schema import CellEnd, Launch

if TYPE_CHECKING:
    from edgeprune.journal import AnyRecord

EQUAL = ("cell_id", "status", "reason", "parity_rel", "instructions", "artifact_bytes", "macs", "accuracy")
"""Columns of cells.csv that faults must not change."""
TIMES = ("latency_ns_median", "latency_ns_ci_low", "latency_ns_ci_high", "latency_ns_p90", "peak_rss_bytes")
"""Columns that must stay empty on emulated devices."""


@dataclass(frozen=True)
class Verdict:
    """How many cells and launches are not as they must be; 0 each if all is well."""

    cells: int
    unfinished: int
    unequal: int
    lost: int
    repeated: int
    timed: int

    @property
    def problems(self) -> int:
        return self.unfinished + self.unequal + self.lost + self.repeated + self.timed


class Watch:
    """Sees that nothing which was once in a journal leaves it."""

    def __init__(self) -> None:
        self._seen: tuple[AnyRecord, ...] = ()
        self.lost = 0

    def look(self, folder: Path) -> tuple[AnyRecord, ...]:
        """Read the journal, and count what is missing since the last time."""
        if not (folder / journal.JOURNAL_NAME).exists():
            return ()
        now = journal.read(folder / journal.JOURNAL_NAME).records
        self.lost += sum(before != after for before, after in zip(self._seen, now, strict=False))
        self.lost += max(0, len(self._seen) - len(now))
        self._seen = now
        return now


def is_complete(records: Sequence[AnyRecord], cells: int) -> bool:
    """Whether that many cells have ended without failing."""
    ends = {record.cell_id: record for record in records if isinstance(record, CellEnd)}
    return sum(end.status == "skipped" for end in ends.values()) == cells


def judge(folder: Path, without_faults: Path, watch: Watch) -> Verdict:
    """Compare a finished folder with one that was made without faults."""
    records = watch.look(folder)
    launches = Counter(
        (record.cell_id, record.purpose, record.block) for record in records if isinstance(record, Launch)
    )
    finished = Counter(
        record.cell_id for record in records if isinstance(record, CellEnd) and record.status == "skipped"
    )
    expected, got = _rows(without_faults), _rows(folder)
    return Verdict(
        cells=len(expected),
        unfinished=len(expected) - len(finished),
        unequal=sum(
            [row.get(column) for column in EQUAL] != [got.get(cell_id, {}).get(column) for column in EQUAL]
            for cell_id, row in expected.items()
        ),
        lost=watch.lost,
        repeated=sum(count - 1 for count in (*launches.values(), *finished.values())),
        timed=sum(any(row[column] for column in TIMES) for row in got.values()),
    )


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cells.csv").open(newline="") as file:
        return {row["cell_id"]: row for row in csv.DictReader(file)}
