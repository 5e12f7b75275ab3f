"""`edgeprune report DIR`: tables, figures and report.html from a results folder's journal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("results", metavar="DIR", type=Path, help="a folder that `edgeprune run` has written")


def carry_out(given: argparse.Namespace) -> int:
    """Write every file of the report and name the page to open."""
    from edgeprune.reporting import write_report

    report = write_report(given.results)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(report.answer)
    print(f"report: {report.html}")
    return 0
