"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their original archives, binary or Python. Start with `read_10`.

The folder holds an archive as it was fetched (`cifar-10-binary.tar.gz`, `cifar-10-python.tar.gz`, the same for 100) or
what is in it (`cifar-10-batches-bin/`, `cifar-10-batches-py/`, `cifar-100-binary/`, `cifar-100-python/`), or is that
folder itself. Python archives are pickles, and are read without running what stands in them (`plain_pickle.py`).

The test split is the published one. Of each class's training images, in their stored order, every tenth goes to
validation: 45,000 train, 5,000 validation, 10,000 test.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgeprune.datasets import plain_pickle
from edgeprune.datasets.in_memory import ImagesInMemory, statistics_of
from edgeprune.datasets.record import Dataset
from edgeprune.errors import DatasetError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
VALIDATION_EVERY = 10


@dataclass(frozen=True)
class _Form:
    """One of the published forms: its folder, its archive, the files of both splits, the file of class names."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    is_binary: bool


@dataclass(frozen=True)
class _Kind:
    """What differs between the two datasets: label bytes before each image, the keys in Python's files."""

    name: str
    classes: int
    label_bytes: int
    labels_key: str
    names_key: str
    forms: tuple[_Form, ...]


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEN = _Kind(
    "cifar10", 10, 1, "labels", "label_names",
    (
        _Form("cifar-10-batches-bin", "cifar-10-binary.tar.gz", tuple(f"{one}.bin" for one in _FIVE),
              ("test_batch.bin",), "batches.meta.txt", True),
        _Form("cifar-10-batches-py", "cifar-10-python.tar.gz", _FIVE, ("test_batch",), "batches.meta", False),
    ),
)  # fmt: skip
_HUNDRED = _Kind(
    "cifar100", 100, 2, "fine_labels", "fine_label_names",
    (
        _Form("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",),
              "fine_label_names.txt", True),
        _Form("cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), "meta", False),
    ),
)  # fmt: skip

_Read = Callable[[str], bytes]


def read_10(input_shape: tuple[int, int, int], folder: Path) -> Dataset:
    """CIFAR-10 in the shape that a model needs; DatasetError if it is not there or damaged."""
    return _dataset(_TEN, input_shape, folder)


def read_100(input_shape: tuple[int, int, int], folder: Path) -> Dataset:
    """CIFAR-100 with its 100 fine labels; DatasetError if it is not there or damaged."""
    return _dataset(_HUNDRED, input_shape, folder)


def _dataset(kind: _Kind, input_shape: tuple[int, int, int], folder: Path) -> Dataset:
    form, read = _find(kind, folder)
    pixels, labels = _images(kind, form, form.train, read)
    held_out = _every_tenth(labels)
    statistics = statistics_of(pixels[~held_out])
    test_pixels, test_labels = _images(kind, form, form.test, read)
    return Dataset(
        name=kind.name,
        num_classes=kind.classes,
        input_shape=input_shape,
        classes=_names(kind, form, read),
        train=ImagesInMemory(pixels[~held_out], labels[~held_out], statistics, input_shape),
        validation=ImagesInMemory(pixels[held_out], labels[held_out], statistics, input_shape),
        test=ImagesInMemory(test_pixels, test_labels, statistics, input_shape),
    )


def _every_tenth(labels: torch.Tensor) -> torch.Tensor:
    """bool [N]: the tenth, twentieth ... image of each class."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        places = (labels == label).nonzero().flatten()
        chosen[places[VALIDATION_EVERY - 1 :: VALIDATION_EVERY]] = True
    return chosen


def _find(kind: _Kind, folder: Path) -> tuple[_Form, _Read]:
    """The first form that the folder holds, and how a file of it is read."""
    for form in kind.forms:
        for place in (folder / form.folder, folder):
            if (place / form.train[0]).is_file():
                return form, partial(_read_file, place)
        archive = folder / form.archive
        if archive.is_file():
            return form, partial(_member, archive, _read_archive(archive, form))
    looked_for = ", ".join(name for form in kind.forms for name in (form.archive, form.folder + "/"))
    raise DatasetError(
        f"dataset {kind.name}: {folder} holds none of its forms", hint=f"put one of these there: {looked_for}"
    )


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}", hint="fetch it again") from error


def _read_archive(archive: Path, form: _Form) -> dict[str, bytes]:
    wanted = {*form.train, *form.test, form.names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                name = Path(member.name).name
                stream = opened.extractfile(member) if name in wanted and member.isfile() else None
                if stream is not None:
                    found[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{archive}: damaged: {error}", hint="fetch it again and compare its checksum") from error
    return found


def _member(archive: Path, contents: dict[str, bytes], name: str) -> bytes:
    if name not in contents:
        raise DatasetError(f"{archive}: holds no {name}", hint="fetch it again and compare its checksum")
    return contents[name]


def _images(kind: _Kind, form: _Form, files: tuple[str, ...], read: _Read) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [N, 3, 32, 32] and int64 [N] of all files together."""
    parts = [_binary(kind, name, read(name)) if form.is_binary else _python(kind, name, read(name)) for name in files]
    pixels, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    return torch.from_numpy(pixels.reshape(-1, 3, SIDE, SIDE).copy()), torch.from_numpy(labels.astype(np.int64))


def _binary(kind: _Kind, name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Records of label bytes (coarse before fine) and 3,072 pixels: red, green, blue, each by rows."""
    record = kind.label_bytes + PIXELS
    if not content or len(content) % record:
        raise DatasetError(
            f"dataset {kind.name}: {name} is {len(content)} bytes, no whole number of records of {record}",
            hint="the file is torn or of another dataset: fetch it again",
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, kind.label_bytes :], _checked(kind, name, rows[:, kind.label_bytes - 1])


def _python(kind: _Kind, name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    found = plain_pickle.read(content, f"dataset {kind.name}: {name}")
    pixels, labels = found.get("data"), found.get(kind.labels_key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise DatasetError(f"dataset {kind.name}: {name} holds no images of {PIXELS} bytes", hint="fetch it again")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(one) is int for one in labels):
        raise DatasetError(f"dataset {kind.name}: {name} has no label for each image", hint="fetch it again")
    return pixels, _checked(kind, name, np.asarray(labels, np.int64))


def _checked(kind: _Kind, name: str, labels: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= kind.classes))
    if len(wrong):
        raise DatasetError(
            f"dataset {kind.name}: {name}, image {wrong[0]}: label {labels[wrong[0]]} of {kind.classes} classes",
            hint="the file is damaged or of another dataset: fetch it again",
        )
    return labels


def _names(kind: _Kind, form: _Form, read: _Read) -> tuple[str, ...]:
    """The classes' names; numbers where the file of names is missing or of other length."""
    try:
        content = read(form.names)
        if form.is_binary:
            names = content.decode("utf-8", "replace").split()
        else:
            names = list(plain_pickle.read(content, form.names).get(kind.names_key, []))
    except DatasetError:
        names = []
    return tuple(names) if len(names) == kind.classes else tuple(str(label) for label in range(kind.classes))
