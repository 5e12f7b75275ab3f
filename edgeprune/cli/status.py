"""`edgeprune status DIR`: what of a results folder is done, failed and left, and how long the rest will take."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("results", metavar="DIR", type=Path, help="a folder that `edgeprune run` has written")


def carry_out(given: argparse.Namespace) -> int:
    """Print a line for each device and state, and name what failed; 1 if a cell failed."""
    from edgeprune import journal, manifest
    from edgeprune.matrix.progress import duration, name
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
    rows = []
    for device in dict.fromkeys(key.device for key in keys):
        here = [key for key in keys if key.device == device]
        states = Counter(ends[key.cell_id].status if key.cell_id in ends else "left" for key in here)
        left = [key for key in here if key.cell_id not in ends]
        launches = sum(max(0, plan.launches - timed[key.cell_id]) for key in left)
        seconds = launches * (plan.seconds + plan.warmup_seconds + 1.0)
        to_go = "seconds a cell, instructions are counted" if here[0].is_emulated else f"about {duration(seconds)}"
        counts = [str(states[state]) for state in ("ok", "invalid", "failed", "skipped", "left")]
        rows.append((device, str(len(here)), *counts, to_go if left else "-"))
    running = "a run is writing here now" if journal.is_locked(folder) else "no run is active"
    print(f"{asked.name} ({asked.run_id}): {running}")
    show(("device", "cells", "ok", "invalid", "failed", "skipped", "left", "to go"), rows)
    for problem in contents.problems:
        print(problem)
    failed = [end for end in ends.values() if end.status in ("failed", "invalid")]
    for end in failed:
        print(f"{end.status}: {name(end.key)}: {end.reason}")
    return 1 if failed else 0
