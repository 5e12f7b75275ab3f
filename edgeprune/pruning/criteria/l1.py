"""The criterion of PFEC: filters with small weights matter least (Li et al. 2017, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.pruning.criteria.context import ScoreContext


def scores(layer: nn.Module, context: ScoreContext) -> torch.Tensor:
    """Sum of absolute weights of each filter: float64 [C_out]; the bias does not count."""
    weight = layer.get_parameter("weight")
    return weight.detach().double().abs().flatten(1).sum(1)
