"""Filters of small Euclidean norm matter least (He et al. 2018, Soft filter pruning, equation 2 with p = 2)."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.pruning.criteria.context import ScoreContext


def scores(layer: nn.Module, context: ScoreContext) -> torch.Tensor:
    """Square root of the sum of squared weights of each filter: float64 [C_out]; the bias does not count."""
    weight = layer.get_parameter("weight")
    return weight.detach().double().flatten(1).square().sum(1).sqrt()
