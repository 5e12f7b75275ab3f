"""The images that criteria and methods look at. Start with `batches_of`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from edgeprune.datasets import Dataset
from edgeprune.pruning.criteria.context import Batches

IMAGES = 256
"""As many of a dataset's training images are looked at."""
_BATCH = 32

Split = TorchDataset[tuple[torch.Tensor, ...]]


def batches_of(data: Dataset | Batches | None) -> Batches | None:
    """Batches that can be gone through more than once: those given, or some of a dataset's training images.

    They are the same every time, as they are without augmentation.
    """
    if isinstance(data, Dataset):
        return DataLoader(_from_all_over(data.train, IMAGES), _BATCH)
    return list(data) if isinstance(data, Iterator) else data


def images_of(split: Split, most: int) -> torch.Tensor:
    """So many images of a split, or all if it has no more, always the same: float32 [N, C, H, W]."""
    chosen = _from_all_over(split, most)
    return torch.stack([chosen[place][0] for place in range(len(chosen))])


def _from_all_over(split: Split, most: int) -> Subset[tuple[torch.Tensor, ...]]:
    """A split may be in the order of its classes, as that of the digits is."""
    count = len(split)  # type: ignore[arg-type]
    return Subset(split, torch.linspace(0, count - 1, min(count, most)).long().tolist())
