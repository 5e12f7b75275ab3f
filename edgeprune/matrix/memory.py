"""What a results folder already holds: the journal's records, indexed, and kept up to date with what is appended.

Devices' threads share one memory: a record is in the journal whole before anybody sees it here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune import journal
from edgeprune.journal import Journal
from edgeprune.matrix.cells import groups, unit
from edgeprune.measuring import MeasurePlan, throttled_window
from edgeprune.schema import CellEnd, CellKey, Launch, Network, NetworkKey

if TYPE_CHECKING:
    from edgeprune.journal import AnyRecord


class Memory:
    """The journal as the run sees it. What is not in here has not happened.

    Launches during which the device throttled are not remembered: they are in the journal, and are made again.
    """

    def __init__(self, folder: Path, writer: Journal, plan: MeasurePlan) -> None:
        contents = journal.read(folder / journal.JOURNAL_NAME)
        self.problems = contents.problems
        self.launches: dict[str, list[Launch]] = {}
        self.ends: dict[str, CellEnd] = {}
        self.networks: dict[NetworkKey, Network] = {}
        self._plan = plan
        self._writer = writer
        self._guard = threading.Lock()
        for record in contents.records:
            self._remember(record)

    def append(self, record: AnyRecord) -> None:
        """Write a record to the journal, then believe it."""
        with self._guard:
            self._writer.append(record)
            self._remember(record)

    def launches_of(self, key: CellKey) -> list[Launch]:
        """The launches of a cell that count."""
        return list(self.launches.get(key.cell_id, ()))

    def is_finished(self, key: CellKey) -> bool:
        """Whether the cell ended well and everything it ended with can still be read.

        Failed and invalid cells are not finished: the same command tries them again.
        """
        end = self.ends.get(key.cell_id)
        if end is None or end.status not in ("ok", "skipped"):
            return False
        if key.is_emulated:  # one that was skipped is asked for again: qemu-user may be here now
            return end.instructions is not None and key.network in self.networks
        if key.is_simulated:  # so may Verilator
            return end.cycles is not None and key.network in self.networks
        made = self.launches_of(key)
        blocks = {launch.block for launch in made if launch.purpose == "latency"}
        complete = blocks >= set(range(self._plan.launches)) and any(one.purpose == "memory" for one in made)
        return end.status == "skipped" or (complete and key.network in self.networks)

    def to_do(self, keys: Sequence[CellKey]) -> list[CellKey]:
        """The cells that are left, and the finished partners they are to be paired with."""
        wanted: set[CellKey] = set()
        for group in groups(keys):
            open_units = {unit(key) for key in group if not self.is_finished(key)}
            wanted |= {key for key in group if unit(key) in open_units}
        return [key for key in keys if key in wanted]

    def _remember(self, record: AnyRecord) -> None:
        if isinstance(record, Launch):
            if record.purpose != "latency" or not throttled_window(record.readings):
                self.launches.setdefault(record.cell_id, []).append(record)
        elif isinstance(record, CellEnd):
            self.ends[record.cell_id] = record
        elif isinstance(record, Network):
            self.networks[record.key] = record
