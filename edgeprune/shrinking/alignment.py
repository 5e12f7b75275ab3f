"""Aligned widths: removed filters are kept where a vector of the machine has room for them.

A kernel computes whole vectors of channels, so a layer of 13 filters takes the time of 16. Start with `Alignment`:
while the backward sweep settles the tensors, `extra` fills each layer's width up to the next multiple, with the
filters that matter most (largest L1 norm of their weights, then the largest constant). Kept filters stand as they are
in the masked network, with the weights that read them, so fine-tuning can use them; the outputs stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Decision, Flags, Layout, Vector, nonzero_constant
from edgeprune.shrinking.constants import Knowledge
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.operators.kernels import LAYERS
from edgeprune.shrinking.size import size

if TYPE_CHECKING:
    from edgeprune.shrinking.plan import Plan


@dataclass(frozen=True)
class Alignment:
    """The multiple that widths are rounded up to, and how much each channel matters, where widths may be chosen.

    Attributes:
        multiple: Channels of a vector.
        ranks: For tensors that a layer or a sum makes, int64 [C]: the channels, the most important first.
        sums: The network's additions.
    """

    multiple: int
    ranks: Mapping[fx.Node, Layout]
    sums: frozenset[fx.Node]

    def extra(self, site: Site, decision: Decision, decisions: Mapping[fx.Node, Decision]) -> Flags:
        """Channels to keep besides those that are needed; none where the layer is gone or its width is fixed."""
        added = np.zeros_like(decision.keep)
        rank, width = self.ranks.get(site.node), int(decision.keep.sum())
        if rank is None or not width:
            return added
        allowed = ~decision.keep
        for reader in site.node.users:
            if reader in self.sums and decisions[reader].live:  # a sum makes no use of channels that it does not keep
                allowed &= decisions[reader].keep
        room = min(-width % self.multiple, len(rank) - width)
        added[rank[allowed[rank]][:room]] = True
        return added


def align_to(multiple: int, network: Network, known: Knowledge) -> Alignment:
    """Rank the channels of every tensor whose width a layer or a sum of layers chooses."""
    importance: dict[fx.Node, Vector] = {}
    ranks: dict[fx.Node, Layout] = {}
    for site in network.sites:
        found = _importance(site, importance)
        if found is None:
            continue
        importance[site.node] = found
        following = [network.by_node[user] for user in site.node.users]
        goes_on = len(following) == 1 and following[0].operator.follows_order and len(following[0].operands) == 1
        if not goes_on or following[0].channels != site.channels:
            constants = known.constants[site.node]
            magnitude = np.where(nonzero_constant(constants), np.abs(constants), 0.0)
            ranks[site.node] = np.lexsort((-magnitude, -found))
    sums = frozenset(site.node for site in network.sites if site.operator.is_addition)
    return Alignment(multiple, ranks, sums)


def _importance(site: Site, known: Mapping[fx.Node, Vector]) -> Vector | None:
    """float64 [C]: the L1 norm of the filters that make each channel."""
    if site.shared:
        return None
    if isinstance(site.module, LAYERS) and site.operands:
        weight = site.kernels.weight
        return np.asarray(weight.abs().flatten(1).sum(dim=1).double().cpu().numpy())
    before = [known.get(operand) for operand in site.operands]
    if site.operator.is_addition and len(before) == 2:
        return None if before[0] is None or before[1] is None else before[0] + before[1]
    if site.operator.follows_order and len(before) == 1 and before[0] is not None and len(before[0]) == site.channels:
        return before[0]
    return None


def cost_and_gain(multiple: int, plan: Plan) -> str:
    """What alignment cost in weights and MACs, and which widths it made whole, as a line of the report."""
    after = {node: decision.keep for node, decision in plan.decisions.items()}
    before = {node: keep & ~plan.held.get(node, np.zeros_like(keep)) for node, keep in after.items()}
    layers = [site.node for site in plan.network.sites if isinstance(site.module, LAYERS) and after[site.node].any()]
    whole = [sum(int(keep[node].sum()) % multiple == 0 for node in layers) for keep in (before, after)]
    kept = sum(int(after[node].sum() - before[node].sum()) for node in layers)
    (params, macs), (more_params, more_macs) = size(plan.network, before), size(plan.network, after)
    return (
        f"aligned to {multiple}: {kept} removed filters kept, for {more_params - params:,} more weights "
        f"({_share(more_params, params)}) and {more_macs - macs:,} more MACs ({_share(more_macs, macs)}); "
        f"widths that are multiples of {multiple}: {whole[1]} of {len(layers)} layers, {whole[0]} before"
    )


def _share(larger: int, smaller: int) -> str:
    return f"{(larger - smaller) / max(smaller, 1):+.1%}"
