"""Scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, installed with the package. Start with `read`.

The split is fixed and needs no random numbers: images are put in order of their class (in their stored order inside a
class) and dealt out by tens: of each ten, the third and sixth to test, the seventh to validation, the others to train.
So every class is in the three splits by the same shares, to one image: 1,257 train, 180 validation, 360 test.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from edgeprune.datasets.record import Dataset
from edgeprune.errors import DatasetError

TEST_PLACES = (2, 5)
VALIDATION_PLACES = (6,)


def read(input_shape: tuple[int, int, int], seed: int) -> Dataset:
    """The digits resized (bilinear, corners not aligned) to [H, W] and repeated to C channels; `seed` has no effect."""
    from sklearn.datasets import load_digits

    try:
        stored = load_digits()
    except OSError as error:
        raise DatasetError(
            f"dataset digits: scikit-learn cannot read its own file: {error}", hint="install scikit-learn again"
        ) from error
    channels, height, width = input_shape
    images = torch.from_numpy(np.asarray(stored.images, dtype=np.float32) / 16.0).unsqueeze(1)
    labels = torch.from_numpy(np.asarray(stored.target, dtype=np.int64))
    images = functional.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    train, validation, test = split(labels)
    deviation, mean = torch.std_mean(images[train])
    images = ((images - mean) / deviation).repeat(1, channels, 1, 1)
    return Dataset(
        name="digits",
        num_classes=10,
        input_shape=input_shape,
        classes=tuple(str(digit) for digit in range(10)),
        train=TensorDataset(images[train], labels[train]),
        validation=TensorDataset(images[validation], labels[validation]),
        test=TensorDataset(images[test], labels[test]),
    )


def split(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices (int64) of train, validation and test, by the rule in the module's docstring."""
    by_class = torch.argsort(labels, stable=True)
    place = torch.arange(len(labels)) % 10
    in_test = torch.isin(place, torch.tensor(TEST_PLACES))
    in_validation = torch.isin(place, torch.tensor(VALIDATION_PLACES))
    return by_class[~(in_test | in_validation)], by_class[in_validation], by_class[in_test]
