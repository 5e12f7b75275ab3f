"""Small datasets in their true formats. CIFAR's layout is written out here again, by its own description."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_FILES = {**{f"data_batch_{number}": 20 for number in range(1, 6)}, "test_batch": 30}
CIFAR100_FILES = {"train": 1000, "test": 100}
NAMES = {10: [f"thing{label}" for label in range(10)], 100: [f"fine{label}" for label in range(100)]}


def cifar_content(classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels uint8 [N, 3072] and labels of each file, the labels in turn."""
    random = np.random.default_rng(classes)
    files = CIFAR10_FILES if classes == 10 else CIFAR100_FILES
    return {
        name: (random.integers(0, 256, (count, 3072), np.uint8), np.arange(count) % classes)
        for name, count in files.items()
    }


def write_cifar(folder: Path, classes: int, form: str, packed: bool) -> None:
    """The archive or its folder; `form` is "binary" or "python"."""
    inner = {
        (10, "binary"): "cifar-10-batches-bin", (10, "python"): "cifar-10-batches-py",
        (100, "binary"): "cifar-100-binary", (100, "python"): "cifar-100-python",
    }[classes, form]  # fmt: skip
    place = folder / inner
    place.mkdir(parents=True)
    for name, (pixels, labels) in cifar_content(classes).items():
        if form == "binary":
            coarse = [] if classes == 10 else [(labels // 5)[:, None]]
            rows = np.concatenate([*coarse, labels[:, None], pixels], 1).astype(np.uint8)
            (place / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            key = "labels" if classes == 10 else "fine_labels"
            (place / name).write_bytes(python_file({key: labels.tolist(), "data": pixels}))
    names = "\n".join(NAMES[classes]) + "\n"
    if form == "binary":
        (place / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")).write_text(names)
    else:
        key = "label_names" if classes == 10 else "fine_label_names"
        (place / ("batches.meta" if classes == 10 else "meta")).write_bytes(python_file({key: NAMES[classes]}))
    if packed:
        with tarfile.open(folder / f"cifar-{classes}-{form}.tar.gz", "w:gz") as archive:
            archive.add(place, inner)
        for file in place.iterdir():
            file.unlink()
        place.rmdir()


def python_file(content: dict) -> bytes:
    """As the published files are: Python 2's second protocol, whose text and keys are bytes."""

    def old(value: object) -> object:
        if isinstance(value, str):
            return _Old(value.encode())
        return [old(one) for one in value] if isinstance(value, list) else value

    stream = io.BytesIO()
    _OldPickler(stream, 2).dump({old(key): old(value) for key, value in content.items()})
    return stream.getvalue()


class _Old(bytes):
    """Text of Python 2."""


class _OldPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes text as Python 2 did, by the operation for its byte strings."""

    def _save_old(self, text: _Old) -> None:
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + bytes(text))

    dispatch = {**pickle._Pickler.dispatch, _Old: _save_old}  # type: ignore[attr-defined] # noqa: RUF012


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_scene(
    folder: Path, split: str, city: str, name: str, label_id: int, size: tuple[int, int] = (64, 32)
) -> None:
    """A Cityscapes image whose left half is of one class and whose right half is not scored (0)."""
    image = folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    write_picture(image, (label_id * 7, 100, 50), size)
    labels = np.zeros((size[1], size[0]), np.uint8)
    labels[:, : size[0] // 2] = label_id
    path = folder / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
