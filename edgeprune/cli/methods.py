"""`edgeprune methods`: the pruning methods that a matrix can name."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes none."""


def carry_out(given: argparse.Namespace) -> int:
    """Print name, meaning, kind, structures, options and source of each."""
    from edgeprune import pruning

    entries = [pruning.entry(name) for name in pruning.methods()]
    rows = [
        (
            entry.name,
            entry.summary,
            entry.kind,
            ", ".join(entry.structures),
            ", ".join(f"{option}={default}" for option, default in entry.options.items()),
            entry.paper,
        )
        for entry in entries
    ]
    own = ("package.module:function", "your own: called with a layer and its context; naming it runs your code")
    show(
        ("method", "what it does", "kind", "removes", "options", "paper"),
        [*rows, (*own, "one-shot", "filter", "", "")],
    )
    return 0
