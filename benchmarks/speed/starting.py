"""What a benchmark sees to before it measures: its packages are there, and the machine is its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from edgeprune.transport import LOCAL, Transport, connect


def require(parser: argparse.ArgumentParser, missing: Sequence[str]) -> None:
    """End with how to install what `shrinking_speed.lacking` found missing."""
    if missing:
        parser.error(f"needs {', '.join(missing)}: pip install --no-deps {' '.join(missing)}")


def acquired(parser: argparse.ArgumentParser, device: str = LOCAL) -> Transport:
    """A device, on which nothing else of edgeprune measures meanwhile; torch, which prepares, has one thread."""
    torch.set_num_threads(1)
    transport = connect(device)
    if not transport.acquire():
        parser.error(f"another run is measuring on {device}: wait for its end")
    return transport
