"""Backwards: which channels anything still needs.

Start with `decide`, which settles one tensor from what all its readers asked. `find_live` sweeps the sites from the
outputs to the inputs, so every reader has spoken before a tensor is settled; it sweeps again only where a module is
called several times, since its calls must agree on its channels. A sweep that widens sums goes by an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from torch import fx

from edgeprune.shrinking.alignment import Alignment
from edgeprune.shrinking.channels import Decision, Demand, Flags, Vector, varies
from edgeprune.shrinking.constants import Knowledge
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.patterns import Multiples
from edgeprune.shrinking.settled import sizes_from

LEAST_CARRIER = 1e-2
"""A constant that is kept anyway carries others up to 100 times its size.

A choice, not measured: it lets rounding grow from 6e-8 of float32 to at most 6e-6, below the check's 1e-5.
"""


Asked = list[tuple[fx.Node, Demand]]
"""What a site asks of each tensor that it reads."""


@dataclass(frozen=True)
class Live:
    """What becomes of each tensor of a network, and what its reader then asked of others."""

    decisions: dict[fx.Node, Decision]
    asked: dict[fx.Node, Asked]


@dataclass(frozen=True)
class _Question:
    """What a sweep goes by: the arguments of `find_live`."""

    network: Network
    known: Knowledge
    widened: Collection[tuple[fx.Node, int]]
    alive: Mapping[fx.Node, Flags]
    alignment: Alignment | None


def find_live(
    network: Network,
    known: Knowledge,
    widened: Collection[tuple[fx.Node, int]] = (),
    alive: Mapping[fx.Node, Flags] | None = None,
    alignment: Alignment | None = None,
    earlier: Live | None = None,
) -> Live:
    """What becomes of each tensor of the network.

    Args:
        network: The traced network.
        known: What the forward sweep found.
        widened: Additions and the place of one of their operands that is to hold all channels that the sum keeps.
        alive: If given, channels that vary are kept only where another method found them alive.
        alignment: If given, how widths are rounded up.
        earlier: What this function found for the same arguments without `widened`, if no widths are rounded up.
    """
    question = _Question(network, known, widened, alive or {}, alignment)
    if not any(site.shared for site in network.sites):
        return _sweep(question, {}, earlier)
    agreed: dict[str, Flags] = {}
    while True:
        before = dict(agreed)
        live = _sweep(question, agreed, None)
        if all(name in before and np.array_equal(agreed[name], before[name]) for name in agreed):
            return live


def decide(site: Site, demand: Demand, constants: Vector, multiples: Multiples, alive: Flags | None = None) -> Decision:
    """Settle one tensor.

    Kept is what has to be there, and what varies and matters, but of the multiples of one pattern that matter only to
    readers that can merge them, one: the carrier. It is one that is kept anyway, or else the largest. The others'
    weights are multiplied by their quotient to the carrier, and so is the carrier's own rounding, so a small one is no
    carrier.
    """
    patterned, moving = multiples.patterned, varies(constants)
    if alive is not None:
        moving &= alive | patterned
    valued = demand.value | demand.merge
    carriers: dict[int, int] = {}
    hidden = None if multiples.is_empty else demand.merge & patterned
    keep = demand.physical | (moving & (valued if hidden is None else demand.value | (demand.merge & ~patterned)))
    if hidden is not None and np.count_nonzero(hidden):
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


def _sweep(question: _Question, agreed: dict[str, Flags], earlier: Live | None) -> Live:
    """One sweep; where nobody asks for anything else than in an earlier one, its answer stands."""
    touched = {node for node, _ in question.widened}
    demands: dict[fx.Node, Demand] = {}
    live = Live({}, {})
    for site in reversed(question.network.sites):
        node = site.node
        before = None if earlier is None else earlier.asked[node]
        if earlier is not None and before is not None and node not in touched:
            live.decisions[node], asked = earlier.decisions[node], before
        else:
            demand = demands.get(node) or Demand.nothing(site.channels)
            live.decisions[node] = _settled(site, demand, question, agreed, live.decisions)
            asked = _asked(site, live.decisions[node], question)
            if before is not None:
                touched |= _changed(before, asked)
        live.asked[node] = asked
        for operand, wish in asked:
            others = demands.get(operand)
            demands[operand] = wish if others is None else others | wish
    return live


def _settled(
    site: Site,
    demand: Demand,
    question: _Question,
    agreed: dict[str, Flags],
    decisions: Mapping[fx.Node, Decision],
) -> Decision:
    node, alignment = site.node, question.alignment
    constants, multiples = question.known.constants[node], question.known.multiples[node]
    alive = question.alive.get(node)
    if site.shared:
        own = decide(site, demand, constants, multiples, alive)
        if own.live:  # rows that another call needs are there, whatever they hold at this one
            agreed[site.name] = agreed[site.name] | own.keep if site.name in agreed else own.keep
            demand = demand | Demand.of(np.zeros_like(own.keep), physical=agreed[site.name])
    if node.op in ("output", "placeholder"):
        demand = demand | Demand.of(np.zeros(site.channels, dtype=np.bool_), present=True)
    decision = decide(site, demand, constants, multiples, alive)
    source = sizes_from(site, decision, constants, question.network)
    if source is not None:
        return decision._replace(sized_by=source)
    if alignment is None:
        return decision
    extra = alignment.extra(site, decision, decisions)
    demand = demand | Demand.of(extra, physical=decision.keep | extra)
    return decide(site, demand, constants, multiples, alive)


def _asked(site: Site, decision: Decision, question: _Question) -> Asked:
    """What a site asks of the tensors that it reads, to make what was decided of its own."""
    if not decision.live:
        return []
    if decision.sized_by is not None:
        channels = question.network.by_node[decision.sized_by].channels
        return [(decision.sized_by, Demand.of(np.zeros(channels, dtype=np.bool_), present=True))]
    node, constants = site.node, question.known.constants
    wishes = site.operator.demands(site, decision, constants[node], [constants[x] for x in site.operands])
    asked = list(zip(site.operands, wishes, strict=True))
    for place, operand in enumerate(site.operands):
        if (node, place) in question.widened:
            asked.append((operand, Demand.of(decision.exact, physical=decision.keep)))
    for other in node.all_input_nodes:
        if other not in site.operands:
            asked.append((other, Demand.everything(question.network.by_node[other].channels)))
    return asked


def _changed(before: Asked, after: Asked) -> set[fx.Node]:
    """The tensors of which something else is asked now."""
    if [operand for operand, _ in before] != [operand for operand, _ in after]:
        return {operand for operand, _ in (*before, *after)}
    return {operand for (operand, one), (_, other) in zip(before, after, strict=True) if not _same(one, other)}


def _same(one: Demand, other: Demand) -> bool:
    flags = zip(one[:3], other[:3], strict=True)
    return one.present == other.present and all(np.array_equal(*pair) for pair in flags)
