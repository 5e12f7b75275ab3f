"""Backwards: which channels anything still needs.

Start with `decide`, which settles one tensor from what all its readers asked. `find_live` sweeps the sites from the
outputs to the inputs, so every reader has spoken before a tensor is settled; it sweeps again only where a module is
called several times, since its calls must agree on its channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Decision, Demand, Vector, nonzero_constant, varies
from edgeprune.shrinking.graph import Network, Site

LEAST_CARRIER = 1e-2
"""A constant that is kept anyway carries others up to 100 times its size.

A choice, not measured: it lets rounding grow from 6e-8 of float32 to at most 6e-6, below the check's 1e-5.
"""


def find_live(network: Network, constants: Mapping[fx.Node, Vector]) -> dict[fx.Node, Decision]:
    """What becomes of each tensor of the network."""
    agreed: dict[str, Demand] = {}
    while True:
        before = dict(agreed)
        decisions = _sweep(network, constants, agreed)
        if all(name in before and _same(agreed[name], before[name]) for name in agreed):
            return decisions


def decide(site: Site, demand: Demand, constants: Vector) -> Decision:
    """Settle one tensor.

    Kept is what has to be there, and what varies and matters. If constants that matter to a zero border would go, one
    stays as the carrier: a constant that is kept anyway, or else the largest of them. Their weights are multiplied by
    their quotient to the carrier, and so is the carrier's own rounding, so a small one is no carrier.
    """
    keep = demand.physical | ((demand.value | demand.border) & varies(constants))
    valued = demand.value | demand.border
    hidden = demand.border & nonzero_constant(constants)
    carrier = None
    if hidden.any():
        size = np.where(nonzero_constant(constants), np.abs(constants), 0.0)
        able = keep & (size >= LEAST_CARRIER * size[hidden].max())
        carrier = int(np.argmax(np.where(able if able.any() else hidden, size, 0.0)))
        keep[carrier] = valued[carrier] = True
    if demand.present and site.channels and not keep.any():
        keep[0] = True
    if keep.any() or site.node.op == "placeholder":
        keep = site.operator.widen(site, keep)
    return Decision(keep, valued, carrier, live=demand.present or bool(keep.any()))


def _sweep(network: Network, constants: Mapping[fx.Node, Vector], agreed: dict[str, Demand]) -> dict[fx.Node, Decision]:
    demands = {site.node: Demand.nothing(site.channels) for site in network.sites}
    decisions: dict[fx.Node, Decision] = {}
    for site in reversed(network.sites):
        node = site.node
        demand = demands[node]
        if site.shared:
            kept = Demand.of(demand.value | demand.border, physical=decide(site, demand, constants[node]).keep)
            agreed[site.name] = agreed.get(site.name, Demand.nothing(site.channels)) | kept
            demand = demand | agreed[site.name]
        if node.op in ("output", "placeholder"):
            demand = demand | Demand.of(np.zeros(site.channels, dtype=np.bool_), present=True)
        decisions[node] = decision = decide(site, demand, constants[node])
        if not decision.live:
            continue
        asked_of_operands = site.operator.demands(
            site, decision, constants[node], [constants[x] for x in site.operands]
        )
        for operand, asked in zip(site.operands, asked_of_operands, strict=True):
            demands[operand] = demands[operand] | asked
        for other in node.all_input_nodes:
            if other not in site.operands:
                demands[other] = demands[other] | Demand.everything(len(demands[other].value))
    return decisions


def _same(one: Demand, other: Demand) -> bool:
    return bool((one.value == other.value).all() and (one.physical == other.physical).all())
