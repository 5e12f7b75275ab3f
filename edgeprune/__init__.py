"""edgeprune: measure what structured pruning really gains on edge devices.

    import edgeprune as ep
    masks = ep.prune(model, example_inputs, method="l1", ratio=0.5)
    shrunk = ep.shrink(masks.apply(model), example_inputs)
    ep.count(shrunk.model, example_inputs)

Importing the package loads neither torch nor tvm: each name below is looked up when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune import compiling, counting, datasets, exporting, models, pruning, shrinking, training
    from edgeprune.api import compile, run
    from edgeprune.counting import Counts, count
    from edgeprune.exporting import export_onnx
    from edgeprune.pruning import Masks, prune
    from edgeprune.shrinking import Shrunk, load_shrunk, shrink

__version__ = "0.1.0"

_HOMES = {
    "Counts": "counting",
    "Masks": "pruning",
    "Shrunk": "shrinking",
    "compile": "api",
    "count": "counting",
    "export_onnx": "exporting",
    "load_shrunk": "shrinking",
    "prune": "pruning",
    "run": "api",
    "shrink": "shrinking",
}
_ROOMS = ("compiling", "counting", "datasets", "exporting", "models", "pruning", "shrinking", "training")

__all__ = [
    "Counts",
    "Masks",
    "Shrunk",
    "compile",
    "compiling",
    "count",
    "counting",
    "datasets",
    "export_onnx",
    "exporting",
    "load_shrunk",
    "models",
    "prune",
    "pruning",
    "run",
    "shrink",
    "shrinking",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"edgeprune.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"edgeprune.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
