"""What a criterion may look at besides the layer itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ScoreContext:
    """The network around a layer.

    Args:
        name: The layer's name in the model.
        model: The whole model; not to be changed.
        inputs: One input of the model, or several in order.
        data: Batches (images float32 [N, C, H, W], labels int64 [N]) for criteria that look at data, or None.
        random: One stream for all layers, in the order of the forward pass.
    """

    name: str
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    data: Iterable[tuple[torch.Tensor, torch.Tensor]] | None
    random: torch.Generator
