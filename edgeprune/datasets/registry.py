"""Which datasets exist, known without loading torch.

Start with `load`. A new dataset is one new module with a function `read(input_shape, seed)` and one line in
`_entries`; its module is imported when it is read, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from edgeprune.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    from edgeprune.datasets.record import Dataset


@dataclass(frozen=True)
class DatasetEntry:
    """What is known of a dataset before it is read.

    Args:
        name: The name in a matrix.
        summary: One line for lists.
        num_classes: Number of labels.
        channels: Channels of its images as they are stored: 1 is grey, 3 is colour.
        reader: "module:function" that reads it.
    """

    name: str
    summary: str
    num_classes: int
    channels: int
    reader: str


def _entries() -> Mapping[str, DatasetEntry]:
    entries = [
        DatasetEntry(
            "digits",
            "1,797 grey images of handwritten digits, 8x8, resized; ships with scikit-learn",
            num_classes=10,
            channels=1,
            reader="edgeprune.datasets.digits:read",
        ),
        DatasetEntry(
            "synthetic",
            "made from a seed: ten smooth patterns under noise, in any shape",
            num_classes=10,
            channels=3,
            reader="edgeprune.datasets.synthetic:read",
        ),
    ]
    return MappingProxyType({one.name: one for one in entries})


_ENTRIES = _entries()


def names() -> list[str]:
    """The datasets that can be named.

    >>> names()
    ['digits', 'synthetic']
    """
    return list(_ENTRIES)


def entry(name: str) -> DatasetEntry:
    """What is known of the dataset called `name`; UnknownNameError if there is none.

    >>> entry("digits").channels
    1
    """
    if name not in _ENTRIES:
        raise UnknownNameError("dataset", name, _ENTRIES)
    return _ENTRIES[name]


def load(name: str, input_shape: tuple[int, int, int], *, seed: int = 0) -> Dataset:
    """Read a dataset in the shape that a model needs.

    Args:
        name: One of `names()`.
        input_shape: (C, H, W): images are resized to H x W pixels; a grey image is repeated to C channels.
        seed: Of datasets that are made from random numbers; the others are the same for every seed.

    Raises:
        UnknownNameError: No such dataset.
        DatasetError: It cannot be read, or not in that shape.

    >>> len(load("digits", (1, 28, 28)).test)
    360
    """
    found = entry(name)
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise DatasetError(
            f"dataset {name}: cannot be read in shape {tuple(input_shape)}",
            hint="input_shape is (channels, height, width), each at least 1",
        )
    module, _, function = found.reader.partition(":")
    reader = cast("Callable[[tuple[int, int, int], int], Dataset]", getattr(importlib.import_module(module), function))
    return reader(input_shape, seed)
