"""`edgeprune models`: the networks that a matrix can name."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes none."""


def carry_out(given: argparse.Namespace) -> int:
    """Print name, input shape, options and source of each."""
    from edgeprune import models

    rows = []
    for name in models.names():
        entry = models.entry(name)
        options = ", ".join(f"{key}={value}" for key, value in entry.options.items())
        rows.append((name, "x".join(map(str, entry.input_shape)), options, entry.summary, entry.paper))
    show(("model", "input", "options", "what it is", "paper"), rows)
    return 0
