"""A folder of pictures with a folder for each class, as ImageNet is laid out. Start with `read`.

`train/` and `val/` hold the classes' folders; the test split is `val`, and every tenth picture of a class in `train`
goes to validation. A folder without `train/` holds the classes themselves: of each ten pictures of a class, in the
order of their names, two go to test, one to validation and seven to train, as with digits.

Pictures are read when they are needed. For a score the shorter side becomes 8/7 of the model's (256 for 224) and the
middle is cut out; in training a random part of 8 to 100 % of the area is enlarged and mirrored half of the time
(Szegedy et al. 2015, section 6, as ImageNet has been trained with since).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset as TorchDataset

from edgeprune.datasets.augmentation import between, whole
from edgeprune.datasets.pictures import open_picture, standardised
from edgeprune.datasets.record import Dataset
from edgeprune.errors import DatasetError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

_Pictures = list[tuple[Path, int]]


class Pictures(TorchDataset[tuple[torch.Tensor, ...]]):
    """Picture files with labels; (float32 [C, H, W], int64 label) each."""

    def __init__(self, pictures: _Pictures, input_shape: tuple[int, int, int]) -> None:
        self.pictures = pictures
        self.input_shape = input_shape

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        path, label = self.pictures[place]
        channels, height, width = self.input_shape
        picture = open_picture(path, "RGB")
        # the smallest enlargement that covers 8/7 of the wanted size, which is cut from the middle
        scale = max(width / picture.width, height / picture.height) * 8 / 7
        box_width, box_height = width / scale, height / scale
        left, top = (picture.width - box_width) / 2, (picture.height - box_height) / 2
        box = (left, top, left + box_width, top + box_height)
        return standardised(picture.resize((width, height), _bilinear(), box=box), channels), torch.tensor(label)

    def augmented(self, place: int, seed: int) -> tuple[torch.Tensor, ...]:
        """A random part of the picture, mirrored half of the time, and its label."""
        from PIL import Image

        path, label = self.pictures[place]
        channels, height, width = self.input_shape
        random = torch.Generator().manual_seed(seed)
        picture = open_picture(path, "RGB")
        box = _random_part(picture.width, picture.height, random)
        part = picture.resize((width, height), _bilinear(), box=box)
        if whole(1, random):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return standardised(part, channels), torch.tensor(label)


def read(input_shape: tuple[int, int, int], folder: Path) -> Dataset:
    """The pictures of a folder, fitted to (C, H, W).

    Raises:
        DatasetError: there are no classes, or a class has no pictures; a damaged file is told when it is read.
    """
    train_folder = folder / "train"
    classes = _classes(train_folder if train_folder.is_dir() else folder)
    if train_folder.is_dir():
        test_folder = next((place for place in (folder / "val", folder / "test") if place.is_dir()), None)
        if test_folder is None:
            raise DatasetError(f"{folder}: has train/ and neither val/ nor test/", hint="add the pictures to test with")
        if _classes(test_folder) != classes:
            wrong = sorted(set(_classes(test_folder)) ^ set(classes))
            raise DatasetError(
                f"{folder}: classes of train/ and {test_folder.name}/ differ: {', '.join(wrong[:3])}",
                hint="both hold the same folders, one a class",
            )
        splits = _dealt(train_folder, classes, "tttttttttv")
        splits["test"] = _dealt(test_folder, classes, "e")["test"]
    else:
        splits = _dealt(folder, classes, "ttettevttt")
    return Dataset(
        name="image_folder",
        num_classes=len(classes),
        input_shape=input_shape,
        classes=classes,
        train=Pictures(splits["train"], input_shape),
        validation=Pictures(splits["validation"], input_shape),
        test=Pictures(splits["test"], input_shape),
        reads_files=True,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    try:
        found = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")))
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror or error}") from error
    if not found:
        raise DatasetError(f"{folder}: holds no folders", hint="one folder for each class, with its pictures in it")
    return found


def _dealt(folder: Path, classes: Sequence[str], pattern: str) -> dict[str, _Pictures]:
    """Each class's pictures by the letters of `pattern`, over and over: t train, v validation, e test."""
    names = {"t": "train", "v": "validation", "e": "test"}
    splits: dict[str, _Pictures] = {name: [] for name in names.values()}
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise DatasetError(
                f"{folder / name}: a class without pictures", hint=f"known endings: {', '.join(sorted(SUFFIXES))}"
            )
        for number, path in enumerate(found):
            splits[names[pattern[number % len(pattern)]]].append((path, label))
    return splits


def _random_part(width: int, height: int, random: torch.Generator) -> tuple[float, float, float, float]:
    """A box of the picture, of random area and ratio of sides; the whole of it where none fits."""
    for _ in range(TRIES):
        area = width * height * between(*AREA, random)
        ratio = math.exp(between(math.log(RATIO[0]), math.log(RATIO[1]), random))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = between(0.0, width - wide, random), between(0.0, height - high, random)
            return left, top, left + wide, top + high
    return 0.0, 0.0, float(width), float(height)


def _bilinear() -> int:
    from PIL import Image

    return Image.Resampling.BILINEAR
