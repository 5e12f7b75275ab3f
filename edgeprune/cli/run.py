"""`edgeprune run MATRIX`: carry out a matrix and write its report."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("matrix", metavar="MATRIX", help="a YAML file, or the name of a matrix that comes along")
    parser.add_argument("--results", metavar="DIR", type=Path, help="where results go (default: results/<name>)")
    parser.add_argument("--devices", metavar="A,B", help="measure on these devices instead of the matrix's")
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_seconds,
        help="how long a device may be out of contact before its cells are given up (default: 10 minutes)",
    )


def carry_out(given: argparse.Namespace) -> int:
    """Run, report, and say in a few lines what came out; 1 if a cell failed."""
    from edgeprune.matrix import spec
    from edgeprune.matrix.faults import PATIENCE_SECONDS
    from edgeprune.matrix.progress import causes, duration, open_progress
    from edgeprune.matrix.run import run
    from edgeprune.reporting import write_report

    began = time.monotonic()
    matrix = spec.load(spec.find(given.matrix))
    if given.devices is not None:
        matrix = spec.with_devices(matrix, [word.strip() for word in given.devices.split(",") if word.strip()])
    folder: Path = given.results or Path("results") / matrix.name
    try:
        with open_progress() as progress:
            command = [Path(sys.argv[0]).name, *sys.argv[1:]]
            outcome = run(matrix, folder, progress, command=command, patience_s=given.patience or PATIENCE_SECONDS)
        report = write_report(folder)
    except KeyboardInterrupt:
        print(f"\nstopped; what was measured is in {folder}. To go on: {_command(given)}", file=sys.stderr)
        raise
    counts = ", ".join(f"{outcome.count(status)} {status}" for status in ("ok", "invalid", "failed", "skipped"))
    print(f"{matrix.name}: {counts}; {duration(time.monotonic() - began)}")
    for line in causes(outcome.ends):
        print(line)
    print(report.answer)
    print(f"report: {report.html}")
    return 1 if outcome.count("failed") or outcome.count("invalid") else 0


def _seconds(text: str) -> float:
    """A finite number of seconds above 0; argparse tells the user of a ValueError."""
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds


def _command(given: argparse.Namespace) -> str:
    words = ["edgeprune", "run", given.matrix]
    if given.results:
        words += ["--results", str(given.results)]
    if given.devices is not None:
        words += ["--devices", given.devices]
    if given.patience is not None:
        words += ["--patience", f"{given.patience:g}"]
    return shlex.join(words)
