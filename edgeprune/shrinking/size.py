"""Weights and MACs of the layers that a choice of channels leaves, without building them. Start with `size`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import fx

from edgeprune.shrinking.channels import Flags
from edgeprune.shrinking.operators.kernels import LAYERS

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Network, Site

COPY_OF_ONE_NUMBER = 8.0
"""What a copy costs a number of the sum, in multiply-adds of a convolution.

A gathered sum took 0.16 to 0.26 ns a number more than a plain one (table in `streams`); whole ResNets run 20 to 53
multiply-adds a ns there (`results/published/shrinking.md`).
"""


def size(network: Network, keep: Mapping[fx.Node, Flags]) -> tuple[int, int]:
    """Weights and MACs of convolutions and linear layers, each call counted, if `keep` [C] is left of each tensor."""
    params = macs = 0
    for site in network.sites:
        if isinstance(site.module, LAYERS) and site.operands:
            weights = int(keep[site.node].sum()) * weights_of_row(site, keep[site.operands[0]])
            params, macs = params + weights, macs + weights * pixels(site)
    return params, macs


def weights_of_row(layer: Site, read: Flags) -> int:
    """Weights that make one output channel from the inputs that are left; a group's inputs are taken to stay."""
    inputs = int(read.sum()) if layer.operator.chooses_order else layer.kernels.weight.shape[1]
    return inputs * int(layer.kernels.weight[0, 0].numel())


def pixels(layer: Site) -> int:
    """Places in one batch of example inputs at which the layer computes each of its output channels."""
    return 0 if layer.form is None else layer.form.pixels
