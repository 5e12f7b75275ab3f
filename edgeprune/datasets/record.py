"""What every dataset is, once read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset as TorchDataset


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of images and labels.

    Each item of a split is (float32 [C, H, W], int64 label), standardised; for segmentation the label is int64 [H, W],
    with -100 for pixels that do not count. A training split may have `augmented(place, seed)`, which gives the same
    item changed at random as its dataset is usually trained with; else training shifts images by its own schedule.

    Args:
        name: As in a matrix.
        num_classes: Labels are 0 .. num_classes - 1.
        input_shape: (C, H, W).
        classes: The labels' names, in order.
        train: What the weights are fitted to.
        validation: What early stopping and other choices look at.
        test: What accuracies are told on; nothing is chosen by it.
        reads_files: Whether items are read from files when they are asked for, so that other processes are of use.
    """

    name: str
    num_classes: int
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: TorchDataset[tuple[torch.Tensor, ...]]
    validation: TorchDataset[tuple[torch.Tensor, ...]]
    test: TorchDataset[tuple[torch.Tensor, ...]]
    reads_files: bool = False
