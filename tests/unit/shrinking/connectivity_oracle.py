"""Masked networks made over for the oracle of minimality: start with `with_constants_alive`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def with_constants_alive(masked: nn.Module, example: Tensor) -> nn.Module:
    """A copy where filters that leave a number for a zero-bordered depthwise convolution are not zero.

    What such a convolution makes of a number is another image in each channel, so none can stand for the others.
    """
    revived, before = copy.deepcopy(masked), None
    seen: dict[nn.Module, Tensor] = {}
    layers = [m for m in revived.modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_pre_hook(lambda m, x: seen.update({m: x[0]})) for m in layers if m.groups > 1]
    revived(torch.rand_like(example))
    for handle in handles:
        handle.remove()
    for layer in layers:
        if layer in seen and before is not None:
            left = seen[layer].transpose(0, 1).flatten(1).any(1) & ~before.weight.flatten(1).any(1)
            before.weight[left] = 1.0
        before = layer
    return revived
