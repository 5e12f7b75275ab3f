"""Weights that small factors were folded into, made as large as they were, with the network left as it is.

A batch-norm hides how large the weights before it are, yet not from training: a step turns small weights further than
large ones, and at usual rates of fine-tuning weights of a tenth lose what they learned. Start with `rescale`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def rescale(layer: nn.Module, batchnorm: nn.Module, factor: float) -> None:
    """Multiply what a layer puts out, and have the batch-norm that alone reads it take that back.

    In evaluation mode the two give the same numbers as before. A batch-norm without scales or running values, which
    could not, leaves both as they were.
    """
    mean, variance = getattr(batchnorm, "running_mean", None), getattr(batchnorm, "running_var", None)
    if not isinstance(batchnorm, _BatchNorm) or not batchnorm.affine or mean is None or variance is None:
        return
    before = (variance + batchnorm.eps).sqrt()
    for parameter in layer.parameters(recurse=False):
        parameter.mul_(factor)
    mean.mul_(factor)
    variance.mul_(factor**2)
    batchnorm.weight.mul_((variance + batchnorm.eps).sqrt() / (factor * before))
