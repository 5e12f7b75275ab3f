"""`edgeprune methods`: the pruning methods that a matrix can name."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes none."""


def carry_out(given: argparse.Namespace) -> int:
    """Print name, meaning and source of each."""
    from edgeprune import pruning

    entries = [pruning.entry(name) for name in pruning.methods()]
    show(("method", "what it does", "paper"), [(entry.name, entry.summary, entry.paper) for entry in entries])
    return 0
