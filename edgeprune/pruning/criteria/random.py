"""The baseline: filters go by chance (Mittal et al. 2018, Recovering from random pruning)."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.pruning.criteria.context import ScoreContext


def scores(layer: nn.Module, context: ScoreContext) -> torch.Tensor:
    """Uniform random numbers in [0, 1), one for each filter: float64 [C_out], from the context's stream."""
    count = layer.get_parameter("weight").shape[0]
    return torch.rand(count, generator=context.random, dtype=torch.float64)
