"""Additions made cheap: the order of the channels around a sum, and the few zero rows that save a copy.

`effects_of_structured_pruning_2022` (section 3.2) replaces an addition by an indexation-addition, which copies each
operand that lacks some of the sum's channels. What such a copy costs depends on how the channels stand:

    TABLE

Start with `takes_any_order`. Where every reader of a sum takes its channels in any order, the first operand's stand
first and those that only the other holds are appended, so a residual stream only ever grows at its end; where two
layers that nothing else reads meet, both write their rows so that each is one run of the sum (`meeting_orders`).
`few_zero_rows` picks operands that lack so few channels that computing them as zeros is cheaper than the copy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Decision, Layout
from edgeprune.shrinking.graph import Network, Site

COPY_OF_ONE_NUMBER = 12.0
"""Time to spread one number of an operand over the sum's channels, in multiply-adds of a convolution."""

LARGEST_SHARE = 1e-3
"""Zero rows may add this part to the parameters and to the MACs that are left; shrinking promises no more."""


def takes_any_order(network: Network) -> frozenset[fx.Node]:
    """Nodes whose readers, through operators that keep the order, all take the channels in whatever order."""
    free: set[fx.Node] = set()
    for site in reversed(network.sites):
        readers = [network.by_node[user] for user in site.node.users]
        if readers and all(
            reader.operator.reads_any_order(reader) or (reader.operator.follows_order and reader.node in free)
            for reader in readers
        ):
            free.add(site.node)
    return frozenset(free)


def meeting_orders(
    network: Network, decisions: Mapping[fx.Node, Decision], free: frozenset[fx.Node]
) -> dict[fx.Node, Layout]:
    """For two layers that meet in a sum: their rows in an order in which each is one run of the sum's channels.

    Those of one layer alone, then those of both, then those of the other alone.
    """
    orders: dict[fx.Node, Layout] = {}
    for site in network.sites:
        if not site.operator.is_addition or site.node not in free or not decisions[site.node].live:
            continue
        layers = [source_layer(network, operand) for operand in site.operands]
        if layers[0] is None or layers[1] is None:
            continue
        one, other = (decisions[layer.node].keep for layer in layers if layer is not None)
        both = np.flatnonzero(one & other)
        orders[layers[0].node] = np.concatenate([np.flatnonzero(one & ~other), both])
        orders[layers[1].node] = np.concatenate([both, np.flatnonzero(other & ~one)])
    return orders


def few_zero_rows(network: Network, decisions: Mapping[fx.Node, Decision]) -> frozenset[tuple[fx.Node, int]]:
    """Operands of sums, as (sum, place), whose missing channels are computed as zeros: the cheapest first.

    An operand qualifies if its layer's new rows take less time than the copy, up to `LARGEST_SHARE` of the network.
    """
    offers = []
    for site in network.sites:
        if not site.operator.is_addition or not decisions[site.node].live:
            continue
        width = int(decisions[site.node].keep.sum())
        for place, operand in enumerate(site.operands):
            layer = source_layer(network, operand)
            missing = int((decisions[site.node].keep & ~decisions[operand].keep).sum())
            if layer is None or not missing or missing == width:
                continue
            row = _row_params(layer, decisions)
            if missing * row < COPY_OF_ONE_NUMBER * width:
                offers.append((missing * row, missing * row * _pixels(layer), (site.node, place)))
    if not offers:
        return frozenset()
    params, macs = _size(network, decisions)
    chosen = []
    for more_params, more_macs, operand_of_sum in sorted(offers, key=lambda offer: offer[1]):
        params, macs = params - more_params / LARGEST_SHARE, macs - more_macs / LARGEST_SHARE
        if params < 0 or macs < 0:
            break
        chosen.append(operand_of_sum)
    return frozenset(chosen)


def source_layer(network: Network, node: fx.Node) -> Site | None:
    """The layer that chooses this tensor's channels and their order, if nothing else reads them on the way."""
    site = network.by_node[node]
    while len(site.node.users) == 1 and not site.shared:
        if site.operator.chooses_order:
            return site
        if not site.operator.follows_order or len(site.operands) != 1:
            return None
        site = network.by_node[site.operands[0]]
    return None


def _row_params(layer: Site, decisions: Mapping[fx.Node, Decision]) -> int:
    """Weights of one row, and the two numbers of a normalisation that may follow."""
    read = int(decisions[layer.operands[0]].keep.sum())
    return read * int(layer.kernels.weight[0, 0].numel()) + 2


def _pixels(layer: Site) -> int:
    return 1 if layer.form is None else int(layer.form.shape.numel() // max(layer.channels, 1))


def _size(network: Network, decisions: Mapping[fx.Node, Decision]) -> tuple[float, float]:
    """Parameters and MACs that are left in dense layers, which are nearly all."""
    params = macs = 0.0
    for site in network.sites:
        if site.operator.chooses_order and decisions[site.node].live:
            weights = int(decisions[site.node].keep.sum()) * _row_params(site, decisions)
            params, macs = params + weights, macs + weights * _pixels(site)
    return params, macs
