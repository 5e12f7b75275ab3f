"""Images with labels, from local files only. Start with `load`; `registry.py` says how a dataset is added.

Importing this package loads no torch: a dataset's module is loaded when it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.datasets.registry import DatasetEntry, contents, entry, load, names, require_folder

if TYPE_CHECKING:
    from edgeprune.datasets.record import Dataset

__all__ = ["Dataset", "DatasetEntry", "contents", "entry", "load", "names", "require_folder"]


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from edgeprune.datasets.record import Dataset

        return Dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
