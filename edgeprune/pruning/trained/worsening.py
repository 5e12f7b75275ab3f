"""How far a threshold may go before the validation loss says stop. Start with `largest_threshold`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from edgeprune.datasets import Dataset
from edgeprune.evaluation import in_evaluation_mode

_HALVINGS = 10
_BATCH = 256


def validation_loss(model: nn.Module, dataset: Dataset) -> float:
    """Mean cross-entropy of the validation split, in evaluation mode."""
    device = next(model.parameters()).device
    total, count = 0.0, 0
    with in_evaluation_mode(model), torch.inference_mode():
        for images, labels in DataLoader(dataset.validation, _BATCH, generator=torch.Generator()):
            total += float(functional.cross_entropy(model(images.to(device)), labels.to(device), reduction="sum"))
            count += labels.numel()
    return total / count


def largest_threshold(loss_at: Callable[[float], float], highest: float, limit: float) -> float:
    """By bisection, the largest threshold found in [0, highest] at which the loss is at most the limit; 0 at least.

    It is SeReNe's and LOBSTER's search: the worsening that is tolerated decides, not a number for the threshold.

    >>> round(largest_threshold(lambda threshold: threshold**2, 1.0, 0.25), 2)
    0.5
    """
    if loss_at(highest) <= limit:
        return highest
    low, high = 0.0, highest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if loss_at(middle) <= limit else (low, middle)
    return low
