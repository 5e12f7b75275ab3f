"""Additions made cheap: the order of the channels around a sum, and the few zero rows that save a copy.

`effects_of_structured_pruning_2022` (section 3.2) replaces an addition by an indexation-addition, which copies each
operand that lacks some of the sum's channels. What such a copy costs depends on how the channels stand:

    sum (µs in ONNX Runtime)   plain   one run, padded   gathered   two ScatterND
    16 x 32 x 32                   8                10         12              20
    64 x 56 x 56                  37                55         63              96
    256 x 56 x 56                133               208        261             541
    512 x 28 x 28                 78               106        162             225
    2048 x 7 x 7                  24                34         50              75

One operand holds half of the channels; one thread of a shared AVX-512 machine, `benchmarks/speed/additions.py`.

Start with `takes_any_order`. Where every reader of a sum takes its channels in any order, the first operand's stand
first and those that only the other holds are appended, so a residual stream only ever grows at its end; where two
layers that nothing else reads meet, both write their rows so that each is one run of the sum (`row_orders`).
`few_zero_rows` picks operands that lack so few channels that computing them as zeros is cheaper than the copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Decision, Flags, Layout, Vector
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.size import COPY_OF_ONE_NUMBER, pixels, size, weights_of_row

NORM_PARAMS = 2
"""Numbers of a channel in the normalisation that may follow a layer: scale and shift."""

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


def row_orders(
    network: Network, decisions: Mapping[fx.Node, Decision], free: frozenset[fx.Node]
) -> dict[fx.Node, Layout]:
    """For sums and for the layers that only a sum reads: their channels in an order that saves copies.

    Where two such layers meet, the channels of one alone stand first, then those of both, then those of the other
    alone, so that each is one run. Where one meets a stream, the stream stands first and the layer's rows follow it.
    """
    orders: dict[fx.Node, Layout] = {}
    for site in network.sites:
        if not site.operator.is_addition or site.node not in free or not decisions[site.node].live:
            continue
        keep, layers = decisions[site.node].keep, [source_layer(network, operand) for operand in site.operands]
        kept = [decisions[operand].keep for operand in site.operands]
        held = [
            orders.get(_origin(network, operand), np.flatnonzero(has))
            for operand, has in zip(site.operands, kept, strict=True)
        ]
        if layers[0] is not None and layers[1] is not None:
            order = [np.flatnonzero(kept[0] & ~kept[1]), np.flatnonzero(kept[0] & kept[1]), np.flatnonzero(kept[1])]
        elif layers[0] is not None or (layers[1] is None and kept[1].sum() > kept[0].sum()):
            order = held[::-1]
        else:
            order = held
        orders[site.node] = in_order(keep, order)
        for layer in layers:
            if layer is not None:
                orders[layer.node] = in_order(decisions[layer.node].keep, [orders[site.node]])
    return orders


def in_order(keep: Flags, wanted: Sequence[Layout]) -> Layout:
    """The channels that are kept, each once, in the order in which they are first wanted; the rest at the end."""
    listed = np.concatenate([*wanted, np.flatnonzero(keep)])
    _, first = np.unique(listed, return_index=True)
    order = listed[np.sort(first)]
    return np.asarray(order[keep[order]], dtype=np.int64)


def _origin(network: Network, node: fx.Node) -> fx.Node:
    """The node that chose this tensor's order of channels."""
    site = network.by_node[node]
    while not site.shared and (before := _same_channels(network, site)) is not None:
        site = before
    return site.node


def _same_channels(network: Network, site: Site) -> Site | None:
    """What gives a site its channels, one by one and in order, if that is one tensor."""
    if not site.operator.follows_order or len(site.operands) != 1:
        return None
    before = network.by_node[site.operands[0]]
    return before if before.channels == site.channels else None


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
            row = weights_of_row(layer, decisions[layer.operands[0]].keep) + NORM_PARAMS
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
    site: Site | None = network.by_node[node]
    while site is not None and len(site.node.users) == 1 and not site.shared:
        if site.operator.chooses_order:
            return site
        site = _same_channels(network, site)
    return None
