"""Backwards: which channels anything still needs.

Start with `decide`, which settles one tensor from what all its readers asked. `find_live` sweeps the sites from the
outputs to the inputs, so every reader has spoken before a tensor is settled; it sweeps again only where a module is
called several times, since its calls must agree on its channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import fx

from edgeprune.shrinking.alignment import Alignment
from edgeprune.shrinking.channels import Decision, Demand, Flags, Vector, varies
from edgeprune.shrinking.constants import Knowledge
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.patterns import Multiples

LEAST_CARRIER = 1e-2
"""A constant that is kept anyway carries others up to 100 times its size.

A choice, not measured: it lets rounding grow from 6e-8 of float32 to at most 6e-6, below the check's 1e-5.
"""


def find_live(
    network: Network,
    known: Knowledge,
    widened: Collection[tuple[fx.Node, int]] = (),
    alive: Mapping[fx.Node, Flags] | None = None,
    alignment: Alignment | None = None,
) -> dict[fx.Node, Decision]:
    """What becomes of each tensor of the network.

    Args:
        network: The traced network.
        known: What the forward sweep found.
        widened: Additions and the place of one of their operands that is to hold all channels that the sum keeps.
        alive: If given, channels that vary are kept only where another method found them alive.
        alignment: If given, how widths are rounded up.
    """
    agreed: dict[str, Flags] = {}
    while True:
        before = dict(agreed)
        decisions = _sweep(network, known, widened, alive or {}, alignment, agreed)
        if all(name in before and np.array_equal(agreed[name], before[name]) for name in agreed):
            return decisions


def decide(site: Site, demand: Demand, constants: Vector, multiples: Multiples, alive: Flags | None = None) -> Decision:
    """Settle one tensor.

    Kept is what has to be there, and what varies and matters, but of the multiples of one pattern that matter only to
    readers that can merge them, one: the carrier. It is one that is kept anyway, or else the largest. The others'
    weights are multiplied by their quotient to the carrier, and so is the carrier's own rounding, so a small one is no
    carrier.
    """
    patterned = multiples.patterned
    moving = varies(constants)
    if alive is not None:
        moving &= alive | patterned
    valued = demand.value | demand.merge
    hidden = demand.merge & patterned
    keep = demand.physical | (moving & (demand.value | (demand.merge & ~patterned)))
    carriers: dict[int, int] = {}
    if np.count_nonzero(hidden):
        size = np.abs(multiples.coefficient)
        for pattern in np.unique(multiples.pattern[hidden]):
            same = multiples.pattern == pattern
            able = same & keep & (size >= LEAST_CARRIER * size[same & hidden].max())
            carrier = int(np.argmax(np.where(able if able.any() else same & hidden, size, 0.0)))
            keep[carrier] = valued[carrier] = True
            carriers[int(pattern)] = carrier
    kept = int(np.count_nonzero(keep))  # several times as fast as keep.any()
    if demand.present and site.channels and not kept:
        keep[0], kept = True, 1
    if kept or site.node.op == "placeholder":
        keep = site.operator.widen(site, keep)
        kept = int(np.count_nonzero(keep))
    return Decision(keep, valued, carriers, live=demand.present or kept > 0)


def _sweep(
    network: Network,
    known: Knowledge,
    widened: Collection[tuple[fx.Node, int]],
    alive: Mapping[fx.Node, Flags],
    alignment: Alignment | None,
    agreed: dict[str, Flags],
) -> dict[fx.Node, Decision]:
    constants, multiples = known.constants, known.multiples
    demands: dict[fx.Node, Demand] = {}
    decisions: dict[fx.Node, Decision] = {}
    for site in reversed(network.sites):
        node = site.node
        demand = demands.get(node) or Demand.nothing(site.channels)
        if site.shared:
            own = decide(site, demand, constants[node], multiples[node], alive.get(node))
            if own.live:  # rows that another call needs are there, whatever they hold at this one
                agreed[site.name] = agreed[site.name] | own.keep if site.name in agreed else own.keep
                demand = demand | Demand.of(np.zeros_like(own.keep), physical=agreed[site.name])
        if node.op in ("output", "placeholder"):
            demand = demand | Demand.of(np.zeros(site.channels, dtype=np.bool_), present=True)
        decision = decide(site, demand, constants[node], multiples[node], alive.get(node))
        if alignment is not None:
            extra = alignment.extra(site, decision, decisions)
            demand = demand | Demand.of(extra, physical=decision.keep | extra)
            decision = decide(site, demand, constants[node], multiples[node], alive.get(node))
        decisions[node] = decision
        if not decision.live:
            continue
        asked_of_operands = site.operator.demands(
            site, decision, constants[node], [constants[x] for x in site.operands]
        )
        for place, (operand, asked) in enumerate(zip(site.operands, asked_of_operands, strict=True)):
            _ask(demands, operand, asked)
            if (node, place) in widened:
                _ask(demands, operand, Demand.of(decision.exact, physical=decision.keep))
        for other in node.all_input_nodes:
            if other not in site.operands:
                _ask(demands, other, Demand.everything(network.by_node[other].channels))
    return decisions


def _ask(demands: dict[fx.Node, Demand], node: fx.Node, asked: Demand) -> None:
    before = demands.get(node)
    demands[node] = asked if before is None else before | asked
