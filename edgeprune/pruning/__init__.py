"""Which filters go. Start with `prune`; `masks.py` is its result; `criteria/` scores filters, one file each.

Importing this package loads no torch until a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune.pruning.criteria import CriterionEntry, entry, methods

if TYPE_CHECKING:
    from edgeprune.pruning.masks import Masks
    from edgeprune.pruning.select import prune

__all__ = ["CriterionEntry", "Masks", "entry", "methods", "prune"]

_LATE = {"Masks": "edgeprune.pruning.masks", "prune": "edgeprune.pruning.select"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
