"""`edgeprune status DIR`: what of a results folder is done, failed and left by device, and when each was last heard."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.listing import show

if TYPE_CHECKING:
    from edgeprune.journal import AnyRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("results", metavar="DIR", type=Path, help="a folder that `edgeprune run` has written")


def carry_out(given: argparse.Namespace) -> int:
    """Print a line for each device and state, and name what failed; 1 if a cell failed."""
    from edgeprune import journal, manifest
    from edgeprune.matrix.progress import causes, duration
    from edgeprune.measuring import MeasurePlan
    from edgeprune.schema import CellEnd, Launch

    folder: Path = given.results
    asked = manifest.read(folder)
    contents = journal.read(folder / journal.JOURNAL_NAME)
    ends = {record.cell_id: record for record in contents.records if isinstance(record, CellEnd)}
    timed = Counter(
        record.cell_id for record in contents.records if isinstance(record, Launch) and record.purpose == "latency"
    )
    plan = MeasurePlan.model_validate(asked.plan)
    keys = asked.keys()
    heard = _last_heard(contents.records, {key.cell_id: key.device for key in keys})
    rows = []
    for device in dict.fromkeys(key.device for key in keys):
        here = [key for key in keys if key.device == device]
        states = Counter(ends[key.cell_id].status if key.cell_id in ends else "left" for key in here)
        left = [key for key in here if key.cell_id not in ends]
        launches = sum(max(0, plan.launches - timed[key.cell_id]) for key in left)
        seconds = launches * (plan.seconds + plan.warmup_seconds + 1.0)
        to_go = f"about {duration(seconds)}"
        if here[0].is_emulated or here[0].is_simulated:
            to_go = f"seconds a cell, {'instructions' if here[0].is_emulated else 'cycles'} are counted"
        counts = [str(states[state]) for state in ("ok", "invalid", "failed", "skipped", "left")]
        rows.append((device, str(len(here)), *counts, to_go if left else "-", heard.get(device, "never")))
    running = "a run is writing here now" if journal.is_locked(folder) else "no run is active"
    print(f"{asked.name} ({asked.run_id}): {running}")
    show(("device", "cells", "ok", "invalid", "failed", "skipped", "left", "to go", "last contact"), rows)
    for problem in contents.problems:
        print(problem)
    asked_for = {key.cell_id for key in keys}
    failed = [end for end in ends.values() if end.status in ("failed", "invalid") and end.cell_id in asked_for]
    for line in causes(failed):
        print(line)
    return 1 if failed else 0


def _last_heard(records: Iterable[AnyRecord], device_of: Mapping[str, str]) -> dict[str, str]:
    """When each device answered last, UTC to the minute: at the start of a session, or of a launch."""
    from edgeprune.schema import DeviceFacts, Launch, Session

    began: dict[str, str] = {}
    heard: dict[str, str] = {}
    for record in records:
        if isinstance(record, Session):
            began[record.session_id] = record.started_at
        elif isinstance(record, DeviceFacts):
            heard[record.device] = max(heard.get(record.device, ""), began.get(record.session_id, ""))
        elif isinstance(record, Launch) and record.cell_id in device_of:
            device = device_of[record.cell_id]
            heard[device] = max(heard.get(device, ""), record.started_at)
    return {device: when[:16].replace("T", " ") + " UTC" for device, when in heard.items() if when}
