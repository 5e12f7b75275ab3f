"""`edgeprune targets`: the targets that can be compiled for."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes none."""


def carry_out(given: argparse.Namespace) -> int:
    """Print name, triple, processor, instruction sets, vector unit and caches of each."""
    from edgeprune import compiling

    rows = []
    for name in compiling.targets():
        target = compiling.target(name)
        caches = ["?" if size is None else f"{size // 1024} KiB" for size in (target.l1_bytes, target.l2_bytes)]
        rows.append(
            (
                name,
                target.triple,
                target.cpu or "any",
                " ".join(target.features) or "-",
                f"{target.vector_registers} x {target.vector_bits} bit",
                *caches,
            )
        )
    show(("target", "triple", "cpu", "features", "vector registers", "L1 data", "L2"), rows)
    return 0
