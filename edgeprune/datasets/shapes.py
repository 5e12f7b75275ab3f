"""Shapes on a noisy ground, made from a seed, for segmentation without any file. Start with `read`.

Each image holds three shapes, a disc, a square and a triangle in random order, of random place, size and colour, the
later over the earlier; every pixel's label is the shape that is seen there, 0 where there is none. Colours do not tell
the shapes apart, so a network has to look at their outlines.
"""

from __future__ import annotations

import torch
from torch.utils.data import Dataset as TorchDataset

from edgeprune.datasets.augmentation import between, flip_both
from edgeprune.datasets.record import Dataset

CLASSES = ("ground", "disc", "square", "triangle")
TRAIN, VALIDATION, TEST = 240, 40, 60
NOISE = 0.25


class Shapes(TorchDataset[tuple[torch.Tensor, ...]]):
    """Images made when they are asked for: (float32 [C, H, W] of about unit deviation, int64 [H, W]) each."""

    def __init__(self, seeds: range, input_shape: tuple[int, int, int]) -> None:
        self.seeds = seeds
        self.input_shape = input_shape

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        random = torch.Generator().manual_seed(self.seeds[place])
        channels, height, width = self.input_shape
        image = torch.randn(self.input_shape, generator=random) * NOISE
        labels = torch.zeros(height, width, dtype=torch.int64)
        for label in (torch.randperm(len(CLASSES) - 1, generator=random) + 1).tolist():
            seen = _outline(label, height, width, random)
            colour = torch.randn(channels, generator=random)
            colour = colour / colour.norm() * channels**0.5 * 1.5
            image = torch.where(seen, image + colour.view(-1, 1, 1), image)
            labels[seen] = label
        return image, labels

    def augmented(self, place: int, seed: int) -> tuple[torch.Tensor, ...]:
        """The image and its labels, mirrored half of the time."""
        image, labels = self[place]
        return flip_both(image, labels, torch.Generator().manual_seed(seed))


def read(input_shape: tuple[int, int, int], seed: int) -> Dataset:
    """240 train, 40 validation and 60 test images in any shape, the same for the same seed and shape."""
    first = seed * (TRAIN + VALIDATION + TEST)
    numbers = range(first, first + TRAIN + VALIDATION + TEST)
    return Dataset(
        name="shapes",
        num_classes=len(CLASSES),
        input_shape=input_shape,
        classes=CLASSES,
        train=Shapes(numbers[:TRAIN], input_shape),
        validation=Shapes(numbers[TRAIN : TRAIN + VALIDATION], input_shape),
        test=Shapes(numbers[TRAIN + VALIDATION :], input_shape),
    )


def _outline(label: int, height: int, width: int, random: torch.Generator) -> torch.Tensor:
    """bool [H, W]: where the shape is, of a radius between a sixth and a third of the shorter side."""
    radius = between(1 / 6, 1 / 3, random) * min(height, width)
    row, column = between(0.2, 0.8, random) * height, between(0.2, 0.8, random) * width
    down = (torch.arange(height) - row).view(-1, 1) / radius
    right = (torch.arange(width) - column).view(1, -1) / radius
    if CLASSES[label] == "disc":
        return down.square() + right.square() <= 1.0
    if CLASSES[label] == "square":
        return (down.abs() <= 0.8) & (right.abs() <= 0.8)
    return (down <= 0.8) & (down >= 2.0 * right.abs() - 1.0)
