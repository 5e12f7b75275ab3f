"""Attention of several heads between linear layers: whole heads go, and what no head needs of its queries and values.

Start with `Attention`, which stands for all of it at its last step, where the heads are joined again; the steps before
are `AttentionPart`s of it. `heads.attention_at` says what is recognised as attention.

A head goes when nothing reads its outputs, which are constant where its values are: weights of attention sum to one,
but for a query that a mask leaves no key. A place in the heads' queries and keys goes when it adds nothing to their
products, or, by a constant key, the same number to all products of a query, which softmax takes off again. All heads
of a tensor have one width, so the heads that are left keep as many places as the one that needs most; the scale stays
that of the masked heads.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, varies
from edgeprune.shrinking.forms import Form, Forms
from edgeprune.shrinking.operators.base import Operator, PassedBy
from edgeprune.shrinking.operators.heads import Heads, Picked, attention_at, attention_of, sizes_of

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


@dataclass(frozen=True)
class Cut:
    """What is left of an attention: for queries, keys and values the channels that each reads of its tensor.

    Each is int64 [heads, width]: a row for each head that is left. Queries and keys have the same width.
    """

    queries: Layout
    keys: Layout
    values: Layout

    @classmethod
    def of(cls, heads: Heads, decision: Decision, constants: Sequence[Vector]) -> Cut:
        """The cut that makes what was decided of the joined channels, given what is known of the tensors."""
        grid, exact = (flags.reshape(heads.count, -1) for flags in (decision.keep, decision.exact))
        left = np.flatnonzero(grid.any(axis=1))
        queries, keys = heads.known(heads.queries, constants), heads.known(heads.keys, constants)
        asked = (varies(queries) | (queries != 0.0)) & varies(keys) & exact.any(axis=1, keepdims=True)
        asked = _as_wide(np.ones_like(asked[left]) if heads.mixed else asked[left])
        return cls(*(
            part.start + left[:, None] * part.width + np.nonzero(places)[1].reshape(len(left), -1)
            for part, places in ((heads.queries, asked), (heads.keys, asked), (heads.values, grid[left]))
        ))  # fmt: skip

    def of_parts(self, heads: Heads) -> tuple[tuple[Picked, Layout], ...]:
        """The three with the channels that they read of their tensors."""
        return (heads.queries, self.queries), (heads.keys, self.keys), (heads.values, self.values)


def _as_wide(grid: Flags) -> Flags:
    """The same places, and in rows that have fewer than another, or than one, some more from the front."""
    missing = max(1, int(grid.sum(axis=1).max())) - grid.sum(axis=1)
    spare = ~grid
    return np.asarray(grid | (spare & (np.cumsum(spare, axis=1) <= missing[:, None])))


class Attention(Operator):
    """[N, T, heads * width]: the joined heads, by their queries, keys and values, as linear layers make them."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        heads = attention_at(node, forms)
        return None if heads is None else heads.tensors

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: object) -> int | None:
        return operands[0].rank - 1

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        heads = _heads(site)
        values = heads.known(heads.values, operands).reshape(-1)
        return np.where(values == 0.0, 0.0, np.nan) if heads.masked else values

    def widen(self, site: Site, keep: Flags) -> Flags:
        grid = keep.reshape(_heads(site).count, -1)
        left = grid.any(axis=1)
        wide = grid.copy()
        wide[left] = _as_wide(grid[left])
        return wide.reshape(-1)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        heads = _heads(site)
        cut = Cut.of(heads, decision, operands)
        exact, there = ([np.zeros(len(operand), dtype=np.bool_) for operand in operands] for _ in range(2))
        left, matter = (np.any(x.reshape(heads.count, -1), axis=1) for x in (decision.keep, decision.exact))
        for part, channels in cut.of_parts(heads):
            there[part.place][channels] = True
            if part is not heads.values:
                exact[part.place][channels[np.asarray(matter[left])]] = True
        exact[heads.values.place][heads.values.start :][: len(decision.exact)] |= decision.exact
        return [Demand.of(e, physical=p, present=True) for e, p in zip(exact, there, strict=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        sizes = sizes_of(site.node)
        if not sizes:
            return surgery.copy(site)  # a flatten names no size
        told = [surgery.value(size) if isinstance(size, fx.Node) else size for size in sizes[:-1]]
        joined: fx.Node = site.node.args[0]  # type: ignore[assignment]
        return surgery.call_method(site, "reshape", surgery.value(joined), *told, len(surgery.plan.layouts[site.node]))


class AttentionPart(PassedBy):
    """A step inside an attention, which is settled at its last step."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        heads = attention_of(node, forms)
        if heads is None:
            return None
        # every other step is asked for whole, and makes what is left of it
        return tuple(tensor for tensor in heads.tensors if tensor in node.all_input_nodes)

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: object) -> int | None:
        return None

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        heads = attention_of(site.node, site.forms)
        if heads is None:
            raise TypeError(f"{site.name} is no part of an attention")
        plan = surgery.plan
        cut = Cut.of(heads, plan.decisions[heads.join], [plan.constants[tensor] for tensor in heads.tensors])
        apart = heads.packing and cut.queries.shape != cut.values.shape
        if site.node in [part.view for part in heads.parts]:
            return _viewed(site, surgery, heads, cut)
        if apart and site.node in heads.packing:
            return surgery.value(heads.queries.view)
        if apart and site.node in [part.node for part in heads.parts]:
            return _taken(site, surgery, heads, cut)
        copied = surgery.copy(site)
        unscaled = site.node.target is F.scaled_dot_product_attention and copied.kwargs.get("scale") is None
        if unscaled and cut.queries.shape[1] != heads.queries.width:
            copied.kwargs = {**copied.kwargs, "scale": heads.queries.width**-0.5}
        return copied


def _heads(site: Site) -> Heads:
    heads = attention_at(site.node, site.forms)
    if heads is None:
        raise TypeError(f"{site.name} joins no heads")
    return heads


def _viewed(site: Site, surgery: Surgery, heads: Heads, cut: Cut) -> fx.Node:
    """The view of what is left; where queries and values differ in width, what all three are taken from, unviewed."""
    read = [(part, channels) for part, channels in cut.of_parts(heads) if part.view is site.node]
    read.sort(key=lambda one: one[0].start)
    shapes = {channels.shape for _, channels in read}
    tensor = surgery.select(read[0][0].tensor, np.concatenate([channels.reshape(-1) for _, channels in read]))
    if len(shapes) > 1:
        return tensor
    return _view(site, surgery, tensor, [len(read)] * (len(read) > 1), shapes.pop())


def _taken(site: Site, surgery: Surgery, heads: Heads, cut: Cut) -> fx.Node:
    """Queries, keys or values by themselves: their channels, viewed and transposed."""
    start = 0
    for part, channels in sorted(cut.of_parts(heads), key=lambda one: one[0].start):
        if part.node is site.node:
            places = (slice(None), slice(None), slice(start, start + channels.size))
            taken = surgery.call_function(site, operator.getitem, surgery.value(part.view), places)
            apart = _view(surgery.plan.network.by_node[part.view], surgery, taken, [], channels.shape)
            return surgery.call_method(site, "transpose", apart, 1, 2)
        start += channels.size
    raise TypeError(f"{site.name} is no part of an attention")


def _view(site: Site, surgery: Surgery, tensor: fx.Node, packed: list[int], heads: tuple[int, ...]) -> fx.Node:
    sizes = [surgery.value(size) if isinstance(size, fx.Node) else size for size in sizes_of(site.node)[:2]]
    return surgery.call_method(site, "reshape", tensor, *sizes, *packed, *heads)
