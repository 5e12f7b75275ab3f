"""Channels that their batch-norm scales to near nothing matter least (Liu et al. 2017, Network slimming, section 3)."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.pruning.criteria.context import ScoreContext


def scores(layer: nn.Module, context: ScoreContext) -> torch.Tensor:
    """Absolute scale of the batch-norm behind each filter: float64 [C_out].

    Raises:
        ModelError: no batch-norm with a scale reads the layer, and it alone.
    """
    if context.batchnorm is None:
        raise ModelError(
            f"layer {context.name} has no batch-norm of its own behind it, and method bn goes by its scale",
            hint="name the layers that have one, ratio={'conv1': 0.5, ...}, or take a method such as l1",
        )
    return context.model.get_submodule(context.batchnorm).get_parameter("weight").detach().double().abs()
