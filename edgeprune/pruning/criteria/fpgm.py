"""Filters near the geometric median of their layer can be replaced by the others (He et al. 2019, FPGM, section 3.3).

The geometric median is the point with the smallest sum of distances to all filters (equation 4); the filters nearest
to it are those with the smallest such sum themselves (equation 6 to 9).
"""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.pruning.criteria.context import ScoreContext


def scores(layer: nn.Module, context: ScoreContext) -> torch.Tensor:
    """Sum of a filter's Euclidean distances to all filters of its layer: float64 [C_out]; the bias does not count."""
    filters = layer.get_parameter("weight").detach().double().flatten(1)
    # by differences: the quicker way by products loses what tells near filters apart
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
