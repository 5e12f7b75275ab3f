"""Weights and MACs of the layers that a choice of channels leaves, without building them. Start with `size`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from edgeprune.shrinking.channels import Flags
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.operators.kernels import LAYERS


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
    return 0 if layer.form is None else int(layer.form.shape.numel() // max(layer.channels, 1))
