"""Images made from a seed, for tests and for trying a model in any shape. Start with `read`.

Each class has a smooth random pattern; an image is its class's pattern under noise of the same strength. A linear
classifier finds the rule, a network that did not learn stays at one in ten.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from edgeprune.datasets.record import Dataset

CLASSES = 10
TRAIN, VALIDATION, TEST = 1000, 200, 300


def read(input_shape: tuple[int, int, int], seed: int) -> Dataset:
    """1,000 train, 200 validation and 300 test images of ten classes, the same for the same seed and shape."""
    channels, height, width = input_shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(CLASSES, channels, 4, 4, generator=generator)
    patterns = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    labels = torch.arange(TRAIN + VALIDATION + TEST) % CLASSES
    images = patterns[labels] + torch.randn(len(labels), *input_shape, generator=generator)
    deviation, mean = torch.std_mean(images[:TRAIN])
    images = (images - mean) / deviation
    train, validation, test = torch.split(torch.arange(len(labels)), [TRAIN, VALIDATION, TEST])
    return Dataset(
        name="synthetic",
        num_classes=CLASSES,
        input_shape=input_shape,
        classes=tuple(f"pattern {index}" for index in range(CLASSES)),
        train=TensorDataset(images[train], labels[train]),
        validation=TensorDataset(images[validation], labels[validation]),
        test=TensorDataset(images[test], labels[test]),
    )
