"""The images that criteria look at. Start with `batches_of`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Subset

from edgeprune.datasets import Dataset
from edgeprune.pruning.criteria.context import Batches

IMAGES = 256
"""As many of a dataset's training images are looked at."""
_BATCH = 32


def batches_of(data: Dataset | Batches | None) -> Batches | None:
    """Batches that can be gone through more than once: those given, or some of a dataset's training images.

    They are the same every time, as they are without augmentation, and from all over the split, which may be in the
    order of its classes.
    """
    if isinstance(data, Dataset):
        count = len(data.train)  # type: ignore[arg-type]
        places = torch.linspace(0, count - 1, min(count, IMAGES)).long().tolist()
        return DataLoader(Subset(data.train, places), _BATCH)
    return list(data) if isinstance(data, Iterator) else data
