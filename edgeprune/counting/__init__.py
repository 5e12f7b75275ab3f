"""Sizes of a network: MACs, parameters, and bytes of its compressed file. Start with `count`.

Importing this package loads no torch until `count` is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune.counting.sizes import compressed_bytes

if TYPE_CHECKING:
    from edgeprune.counting.macs import Counts, LayerCount, count

__all__ = ["Counts", "LayerCount", "compressed_bytes", "count"]

_LATE = ("Counts", "LayerCount", "count")


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module("edgeprune.counting.macs"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
