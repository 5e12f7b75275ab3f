"""What a results folder already holds: the journal's records, indexed, and kept up to date with what is appended."""

from __future__ import annotations

from pathlib import Path

from edgeprune import journal
from edgeprune.journal import Journal
from edgeprune.schema import CellEnd, CellKey, DeviceFacts, Launch, Network, NetworkKey, Session


class Memory:
    """The journal as the run sees it. What is not in here has not happened."""

    def __init__(self, folder: Path, writer: Journal) -> None:
        contents = journal.read(folder / journal.JOURNAL_NAME)
        self.problems = contents.problems
        self.launches: dict[str, list[Launch]] = {}
        self.ends: dict[str, CellEnd] = {}
        self.networks: dict[NetworkKey, Network] = {}
        self._writer = writer
        for record in contents.records:
            self._remember(record)

    def append(self, record: Session | DeviceFacts | Network | Launch | CellEnd) -> None:
        """Write a record to the journal, then believe it."""
        self._writer.append(record)
        self._remember(record)

    def is_finished(self, key: CellKey) -> bool:
        """Failed and invalid cells are not finished: the same command tries them again."""
        end = self.ends.get(key.cell_id)
        return end is not None and end.status in ("ok", "skipped")

    def _remember(self, record: Session | DeviceFacts | Network | Launch | CellEnd) -> None:
        if isinstance(record, Launch):
            self.launches.setdefault(record.cell_id, []).append(record)
        elif isinstance(record, CellEnd):
            self.ends[record.cell_id] = record
        elif isinstance(record, Network):
            self.networks[record.key] = record
