"""`edgeprune run MATRIX`: carry out a matrix and write its report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path


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
    if given.devices:
        matrix = spec.with_devices(matrix, [word.strip() for word in given.devices.split(",") if word.strip()])
    folder: Path = given.results or Path("results") / matrix.name
    try:
        with open_progress() as progress:
            outcome = run(matrix, folder, progress, command=[Path(sys.argv[0]).name, *sys.argv[1:]])
    except KeyboardInterrupt:
        print(f"\nstopped; what was measured is in {folder}. To go on: {_command(given)}", file=sys.stderr)
        raise
    report = write_report(folder)
    took = duration(time.monotonic() - began)
    counts = ", ".join(f"{outcome.count(status)} {status}" for status in ("ok", "invalid", "failed", "skipped"))
    print(f"{matrix.name}: {counts}; {took}")
    for end in outcome.ends:
        if end.status in ("failed", "invalid"):
            print(f"  {end.status}: {end.key.network.model} {end.key.network.variant} {end.key.runtime}: {end.reason}")
    print(report.answer)
    print(f"report: {report.html}")
    return 1 if outcome.count("failed") or outcome.count("invalid") else 0


def _command(given: argparse.Namespace) -> str:
    words = ["edgeprune", "run", given.matrix]
    if given.results:
        words += ["--results", str(given.results)]
    if given.devices:
        words += ["--devices", given.devices]
    return shlex.join(words)
