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

from edgeprune.shrinking.channels import Decision, Layout, Vector
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.size import pixels, size, weights_of_row

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


def wanted_orders(
    network: Network, decisions: Mapping[fx.Node, Decision], known: Mapping[fx.Node, Vector]
) -> dict[fx.Node, Layout]:
    """For layers with one reader that wants their rows in an order of its own: that order."""
    orders: dict[fx.Node, Layout] = {}
    for site in network.sites:
        if len(site.operands) != 1 or not decisions[site.node].live:
            continue
        operand = site.operands[0]
        wanted = site.operator.order_wanted(site, decisions[site.node], known[site.node], known[operand])
        layer = source_layer(network, operand) if wanted is not None else None
        if (
            wanted is not None
            and layer is not None
            and np.array_equal(np.flatnonzero(decisions[layer.node].keep), np.sort(wanted))
        ):
            orders[layer.node] = wanted
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
            row = (
                weights_of_row(layer, decisions[layer.operands[0]].keep) + 2
            )  # and the two numbers of a normalisation that may follow
            if missing * row < COPY_OF_ONE_NUMBER * width:
                offers.append((missing * row, missing * row * pixels(layer), (site.node, place)))
    if not offers:
        return frozenset()
    weights, macs = size(network, {node: decision.keep for node, decision in decisions.items()})
    params_left, macs_left = LARGEST_SHARE * weights, LARGEST_SHARE * macs
    chosen = []
    for more_params, more_macs, operand_of_sum in sorted(offers, key=lambda offer: offer[1]):
        params_left, macs_left = params_left - more_params, macs_left - more_macs
        if params_left < 0 or macs_left < 0:
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
