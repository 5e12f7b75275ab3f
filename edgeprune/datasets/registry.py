"""Which datasets exist, known without loading torch.

Start with `load`. A new dataset is one new module with a function `read(input_shape, seed)`, or `read(input_shape,
folder)` if it lies in the user's files, and one line in `_entries`; its module is imported when it is read, not before.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

from edgeprune.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    from edgeprune.datasets.record import Dataset


@dataclass(frozen=True)
class DatasetEntry:
    """What is known of a dataset before it is read.

    Args:
        name: The name in a matrix.
        summary: One line for lists.
        num_classes: Number of labels; None where the folder says it.
        channels: Channels of its images as they are stored: 1 is grey, 3 is colour.
        reader: "module:function" that reads it.
        needs_folder: Whether it lies in files of the user's, whose folder has to be named.
        task: What its labels are of: images, or each of their pixels.
    """

    name: str
    summary: str
    num_classes: int | None
    channels: int
    reader: str
    needs_folder: bool = False
    task: Literal["classification", "segmentation"] = "classification"


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
        DatasetEntry(
            "shapes",
            "made from a seed: discs, squares and triangles on a noisy ground, for segmentation in any shape",
            num_classes=4,
            channels=3,
            reader="edgeprune.datasets.shapes:read",
            task="segmentation",
        ),
        *_in_files(),
    ]
    return MappingProxyType({one.name: one for one in entries})


def _in_files() -> list[DatasetEntry]:
    rows: list[tuple[str, str, int | None, str]] = [
        (
            "cifar10",
            "CIFAR-10 from its original archive, binary or Python: 60,000 images",
            10,
            "cifar:read_10",
        ),
        ("cifar100", "CIFAR-100 from its original archive, with its 100 fine labels", 100, "cifar:read_100"),
        ("image_folder", "pictures in a folder for each class, as ImageNet is laid out", None, "image_folder:read"),
        ("cityscapes", "Cityscapes as its archives unpack, 19 classes, for segmentation", 19, "cityscapes:read"),
    ]
    return [
        DatasetEntry(
            name,
            summary,
            num_classes=classes,
            channels=3,
            reader=f"edgeprune.datasets.{reader}",
            needs_folder=True,
            task="segmentation" if name == "cityscapes" else "classification",
        )
        for name, summary, classes, reader in rows
    ]


_ENTRIES = _entries()


def names() -> list[str]:
    """The datasets that can be named.

    >>> names()
    ['digits', 'synthetic', 'shapes', 'cifar10', 'cifar100', 'image_folder', 'cityscapes']
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


def load(name: str, input_shape: tuple[int, int, int], *, folder: Path | str | None = None, seed: int = 0) -> Dataset:
    """Read a dataset in the shape that a model needs.

    Args:
        name: One of `names()`.
        input_shape: (C, H, W): images are resized to H x W pixels; a grey image is repeated to C channels.
        folder: Where a dataset of the user's files lies; nothing is ever fetched.
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
    reader = getattr(importlib.import_module(module), function)
    if found.needs_folder:
        from_files = cast("Callable[[tuple[int, int, int], Path], Dataset]", reader)
        return from_files(input_shape, require_folder(name, folder))
    made = cast("Callable[[tuple[int, int, int], int], Dataset]", reader)
    return made(input_shape, seed)


def require_folder(name: str, folder: Path | str | None) -> Path:
    """The folder of a dataset's files, with `~` and environment variables replaced.

    Raises:
        DatasetError: none is named, or it is not there.
    """
    if folder is None:
        raise DatasetError(
            f"dataset {name}: no folder is named", hint=f"say where it lies: data: {{name: {name}, folder: FOLDER}}"
        )
    place = Path(os.path.expandvars(folder)).expanduser()
    if not place.is_dir():
        unset = "$" in str(place)
        raise DatasetError(
            f"dataset {name}: no folder {place}",
            hint="set that variable to the folder of your copy" if unset else "name the folder of your own copy",
        )
    return place


@lru_cache
def contents(folder: Path) -> str:
    """Hash of the names and sizes of all files of a folder: what tells one copy of a dataset from another.

    Files are not read, which would take minutes for the large ones: an image that was changed and kept its size goes
    unnoticed. Links are followed, each folder once; one that leads nowhere counts as empty and is told when it is read.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        real = str(Path(place).resolve())
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in sorted(files):
            path = Path(place, file)
            size = path.stat().st_size if path.exists() else 0
            digest.update(f"{path.relative_to(folder)}\0{size}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
