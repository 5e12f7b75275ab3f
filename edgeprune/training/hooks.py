"""Moments of a training at which a pruning method may act. Start with `Hooks`; `loop.py` calls it.

Hooks are dataclasses: their `repr` names what they were made with, and stands for them where a stopped training goes
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from edgeprune.datasets import Dataset


class Hooks:
    """Each does nothing here; a method overrides those that it needs."""

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Groups of torch.optim.SGD for parameters that are not decayed as others are; the rest is grouped as ever."""
        return []

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """A number that is added to the loss of every step, differentiable; None for none."""
        return None

    def before_step(self, model: nn.Module, rate: float) -> None:
        """The gradients are there, the optimizer has not moved yet; `rate` is the step's learning rate."""

    def after_step(self, model: nn.Module, rate: float) -> None:
        """The optimizer has moved the weights by one step."""

    def after_epoch(self, model: nn.Module, dataset: Dataset, epoch: int) -> None:
        """The epoch's last step is done (epochs count from 1), its validation accuracy is not yet measured."""

    def state(self) -> dict[str, Any]:
        """What changes while it trains: tensors, numbers, and lists or dicts of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
