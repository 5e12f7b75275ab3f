"""Cityscapes (Cordts et al. 2016) for segmentation, as its archives unpack. Start with `read`.

    leftImg8bit/{train,val}/<city>/<name>_leftImg8bit.png        the images
    gtFine/{train,val}/<city>/<name>_gtFine_labelIds.png         the class of every pixel, 0 .. 33

The 34 classes become the 19 that are scored, in the order of their official training numbers; all other pixels are
ignored. The test split is `val`, since the published test labels are blank; every tenth image of a city in `train` goes
to validation. In training images are enlarged by 0.5 to 2, cut to the model's size and mirrored half of the time
(effects_of_structured_pruning_2022, section 4.1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from edgeprune.datasets.augmentation import IGNORED, between, flip_both, whole
from edgeprune.datasets.pictures import open_picture, standardised
from edgeprune.datasets.record import Dataset
from edgeprune.errors import DatasetError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The stored number of each class, in the same order."""
SCALE = (0.5, 2.0)
_IMAGE_END, _LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"

_Pairs = list[tuple[Path, Path]]


class Scenes(TorchDataset[tuple[torch.Tensor, ...]]):
    """Images with label maps; (float32 [C, H, W], int64 [H, W]) each, -100 where a pixel is ignored."""

    def __init__(self, pairs: _Pairs, input_shape: tuple[int, int, int]) -> None:
        self.pairs = pairs
        self.input_shape = input_shape

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        return self._cut(place, None)

    def augmented(self, place: int, seed: int) -> tuple[torch.Tensor, ...]:
        """A random part at a random scale, mirrored half of the time, with its labels."""
        random = torch.Generator().manual_seed(seed)
        return flip_both(*self._cut(place, random), random)

    def _cut(self, place: int, random: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        from PIL import Image

        image_path, label_path = self.pairs[place]
        channels, height, width = self.input_shape
        image, labels = open_picture(image_path, "RGB"), open_picture(label_path, "")
        if image.size != labels.size or labels.mode not in ("L", "P"):
            raise DatasetError(
                f"{label_path}: {labels.mode} of {labels.size[0]}x{labels.size[1]} pixels for an image of "
                f"{image.size[0]}x{image.size[1]}",
                hint="labels are one byte a pixel, of the image's size (gtFine ... labelIds.png)",
            )
        box = (0, 0, image.width, image.height)
        if random is not None:
            # as much of the scene as fills the model's size at the drawn scale, if there is as much
            scale = between(*SCALE, random) * max(width / image.width, height / image.height)
            wide, high = min(image.width, round(width / scale)), min(image.height, round(height / scale))
            left, top = whole(image.width - wide, random), whole(image.height - high, random)
            box = (left, top, left + wide, top + high)
        seen = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        numbers = np.asarray(labels.resize((width, height), Image.Resampling.NEAREST, box=box))
        return standardised(seen, channels), _scored(numbers, label_path)


def read(input_shape: tuple[int, int, int], folder: Path) -> Dataset:
    """Cityscapes fitted to (C, H, W).

    Raises:
        DatasetError: the layout is another one, or an image has no labels; a damaged file is told when it is read.
    """
    train: _Pairs = []
    validation: _Pairs = []
    for number, pair in _numbered(_pairs(folder, "train")):
        (validation if number % 10 == 9 else train).append(pair)
    return Dataset(
        name="cityscapes",
        num_classes=len(CLASSES),
        input_shape=input_shape,
        classes=CLASSES,
        train=Scenes(train, input_shape),
        validation=Scenes(validation, input_shape),
        test=Scenes(_pairs(folder, "val"), input_shape),
        reads_files=True,
    )


def _pairs(folder: Path, split: str) -> _Pairs:
    images = sorted((folder / "leftImg8bit" / split).glob(f"*/*{_IMAGE_END}"))
    if not images:
        raise DatasetError(
            f"dataset cityscapes: no images in {folder / 'leftImg8bit' / split}",
            hint="the folder holds leftImg8bit/ and gtFine/, as the archives unpack",
        )
    pairs = []
    for image in images:
        labels = folder / "gtFine" / split / image.parent.name / (image.name.removesuffix(_IMAGE_END) + _LABEL_END)
        if not labels.is_file():
            raise DatasetError(f"{labels}: missing, the labels of {image.name}", hint="unpack gtFine's archive again")
        pairs.append((image, labels))
    return pairs


def _numbered(pairs: _Pairs) -> list[tuple[int, tuple[Path, Path]]]:
    """Each pair with its number inside its city."""
    seen: dict[str, int] = {}
    numbered = []
    for pair in pairs:
        city = pair[0].parent.name
        numbered.append((seen.get(city, 0), pair))
        seen[city] = seen.get(city, 0) + 1
    return numbered


def _scored(numbers: np.ndarray, path: Path) -> torch.Tensor:
    """Stored numbers 0 .. 33 (and 255, which is blank) as the classes 0 .. 18, or `IGNORED`."""
    wrong = numbers[(numbers > max(LABEL_IDS)) & (numbers < 255)]
    if wrong.size:
        raise DatasetError(f"{path}: label {int(wrong[0])}", hint="labels are 0 .. 33: gtFine's labelIds.png")
    table = np.full(256, IGNORED, np.int64)
    table[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
    return torch.from_numpy(table[numbers])
