"""`edgeprune run MATRIX`: carry out a matrix and write its report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprune.schema import CellEnd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("matrix", metavar="MATRIX", help="a YAML file, or the name of a matrix that comes along")
    parser.add_argument("--results", metavar="DIR", type=Path, help="where results go (default: results/<name>)")
    parser.add_argument("--devices", metavar="A,B", help="measure on these devices instead of the matrix's")


def carry_out(given: argparse.Namespace) -> int:
    """Run, report, and say in a few lines what came out; 1 if a cell failed."""
    from edgeprune.matrix import spec
    from edgeprune.matrix.progress import duration, open_progress
    from edgeprune.matrix.run import run
    from edgeprune.reporting import write_report

    began = time.monotonic()
    matrix = spec.load(spec.find(given.matrix))
    if given.devices is not None:
        matrix = spec.with_devices(matrix, [word.strip() for word in given.devices.split(",") if word.strip()])
    folder: Path = given.results or Path("results") / matrix.name
    try:
        with open_progress() as progress:
            outcome = run(matrix, folder, progress, command=[Path(sys.argv[0]).name, *sys.argv[1:]])
        report = write_report(folder)
    except KeyboardInterrupt:
        print(f"\nstopped; what was measured is in {folder}. To go on: {_command(given)}", file=sys.stderr)
        raise
    counts = ", ".join(f"{outcome.count(status)} {status}" for status in ("ok", "invalid", "failed", "skipped"))
    print(f"{matrix.name}: {counts}; {duration(time.monotonic() - began)}")
    for (status, reason), names in _causes(outcome.ends).items():
        print(f"{status}: {names[0]}{f' and {len(names) - 1} more cells' if names[1:] else ''}: {reason}")
    print(report.answer)
    print(f"report: {report.html}")
    return 1 if outcome.count("failed") or outcome.count("invalid") else 0


def _causes(ends: Sequence[CellEnd]) -> dict[tuple[str, str], list[str]]:
    """Names of the cells that did not end well, by how and why: one cause is told once."""
    from edgeprune.matrix.progress import name

    found: dict[tuple[str, str], list[str]] = {}
    for end in ends:
        if end.status != "ok":
            found.setdefault((end.status, end.reason), []).append(name(end.key))
    return found


def _command(given: argparse.Namespace) -> str:
    words = ["edgeprune", "run", given.matrix]
    if given.results:
        words += ["--results", str(given.results)]
    if given.devices is not None:
        words += ["--devices", given.devices]
    return shlex.join(words)
