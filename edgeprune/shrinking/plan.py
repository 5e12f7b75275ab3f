"""What the analysis hands to the surgery: everything that was decided, nothing that was done.

`Analysis` is made by `constants` and `liveness`, `Plan` adds the order of channels. A pass that reorders channels to
make additions cheaper belongs between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from edgeprune.shrinking.additions import Addition, absorb, addition_at
from edgeprune.shrinking.alignment import align_to
from edgeprune.shrinking.channels import Decision, Flags, Layout, Vector
from edgeprune.shrinking.constants import Knowledge
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.liveness import Asked, find_live
from edgeprune.shrinking.patterns import Multiples
from edgeprune.shrinking.streams import few_zero_rows, row_orders, takes_any_order, wanted_orders

if TYPE_CHECKING:
    from edgeprune.shrinking.operators.grouped import Bucket


@dataclass(frozen=True)
class Analysis:
    """What is known and needed of each tensor of a network.

    Attributes:
        asked: What each site asks of the tensors that it reads.
        held: Channels that are kept although nothing needs them, where that makes the network faster.
    """

    network: Network
    constants: Mapping[fx.Node, Vector]
    multiples: Mapping[fx.Node, Multiples]
    decisions: Mapping[fx.Node, Decision]
    asked: Mapping[fx.Node, Asked]
    held: Mapping[fx.Node, Flags]


@dataclass(frozen=True)
class Plan(Analysis):
    """An analysis with the channels of each tensor in order, and constants moved into earlier biases.

    Attributes:
        layouts: For each tensor, which masked channel stands at each place; empty where the tensor is gone.
        orders: For layers and sums whose channels stand in another order than the masked network's.
        shifts: For layers that take over an addition's constants: what to add to each output channel.
        additions: The sums that `addition_at` has settled; it looks here first.
        read: The channels that layers read of their operands; `reads` looks here first.
        buckets: The groups of grouped convolutions that `buckets_of` has settled; it looks here first.
        smallest: Layers cut out the channels that they need whatever the copy costs, rather than read numbers that are
            there for others.
    """

    layouts: Mapping[fx.Node, Layout]
    orders: Mapping[fx.Node, Layout]
    shifts: Mapping[fx.Node, Vector]
    additions: dict[fx.Node, Addition]
    read: dict[fx.Node, Layout]
    buckets: dict[fx.Node, list[Bucket]]
    smallest: bool

    def reads(self, site: Site) -> Layout:
        """int64 [K]: the channels that a site reads of its operand, for operators that can say so."""
        if site.node not in self.read:
            self.read[site.node] = site.operator.reads(site, self)
        return self.read[site.node]

    def shift(self, node: fx.Node, channels: int) -> Vector:
        """float64 [channels]: what this layer adds to its bias for a later addition; mostly zeros."""
        found = self.shifts.get(node)
        return np.zeros(channels) if found is None else found


def settle(
    network: Network,
    known: Knowledge,
    alive: Mapping[fx.Node, Flags] | None = None,
    *,
    cheap_sums: bool,
    align: int | None = None,
) -> Analysis:
    """Decide what stays: what is needed, what fills a vector up, and a few zero rows that save a copy at a sum."""
    least = live = find_live(network, known, alive=alive)
    alignment = None if align is None else align_to(align, network, known)
    if alignment is not None:
        live = find_live(network, known, (), alive, alignment)
    widened = few_zero_rows(network, live.decisions) if cheap_sums else frozenset()
    if widened:
        live = find_live(network, known, widened, alive, alignment, earlier=live if alignment is None else None)
    held = {
        node: decision.keep & ~least.decisions[node].keep
        for node, decision in live.decisions.items()
        if decision is not least.decisions[node]
    }
    return Analysis(network, known.constants, known.multiples, live.decisions, live.asked, held)


def arrange(analysis: Analysis, *, reorder: bool) -> Plan:
    """Give each tensor its channels, in ascending order unless sums may reorder them, and settle sums' constants."""
    layouts: dict[fx.Node, Layout] = {}
    network, decisions = analysis.network, analysis.decisions
    orders = wanted_orders(network, decisions, analysis.constants)
    if reorder:
        orders |= row_orders(network, decisions, takes_any_order(network))
    settled: dict[str, Any] = {"additions": {}, "read": {}, "buckets": {}}
    plan = Plan(**vars(analysis), layouts=layouts, orders=orders, shifts={}, smallest=not reorder, **settled)
    shifts: dict[fx.Node, Vector] = {}
    for site in analysis.network.sites:
        operands = [layouts[operand] for operand in site.operands]
        decision = decisions[site.node]
        if decision.sized_by is not None:
            layouts[site.node] = np.flatnonzero(decision.keep)
        else:
            none = np.zeros(0, dtype=np.int64)
            layouts[site.node] = site.operator.layout(site, plan, operands) if decision.live else none
    for site in analysis.network.sites:
        addition = addition_at(site, plan)
        if addition is not None:
            shifts |= absorb(site, addition, plan)
    return replace(plan, shifts=shifts)
