"""`edgeprune compare DIR DIR`: what changed between two runs, with confidence."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("before", metavar="BEFORE", type=Path, help="a results folder")
    parser.add_argument("after", metavar="AFTER", type=Path, help="another one")
    parser.add_argument("--across-devices", action="store_true", help="compare though the devices are other machines")


def carry_out(given: argparse.Namespace) -> int:
    """Print a line for each cell that both folders hold."""
    from edgeprune.matrix.progress import name
    from edgeprune.reporting import compare

    rows = []
    for change in compare(given.before, given.after, across_devices=given.across_devices):
        ratio = change.ratio
        low, high = (ratio.ci_low, ratio.ci_high) if ratio else (None, None)
        interval = f"{low:.3f} .. {high:.3f}" if low is not None and high is not None else "one launch"
        times = f"{ratio.ratio:.3f}" if ratio else ""
        notes = "" if change.same_network else "another network"
        cell = name(change.key)
        rows.append(
            (
                cell,
                f"{change.before_ns / 1e6:.4f}",
                f"{change.after_ns / 1e6:.4f}",
                times,
                interval,
                change.verdict,
                notes,
            )
        )
    show(("cell", "before ms", "after ms", "times as fast", "95 % interval", "verdict", "note"), rows)
    return 0
