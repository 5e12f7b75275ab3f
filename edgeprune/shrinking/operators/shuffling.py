"""Channels in another order: channel shuffle, pixel shuffle and its inverse.

Start with `Shuffle`. It costs nothing in the shrunk network: the channels stay where they are, and the layout says
which masked channel each of them is. Written out, it is a view that splits the channels into groups, a swap of the two
axes and a view that joins them; the first two are `Part`s of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, Forms, moved_axis
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import Operator, PassedBy, Repeated, argument, called_name, sizes_told
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.operators.questions import known_number
from edgeprune.shrinking.patterns import Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class _Found(NamedTuple):
    """A channel shuffle: the tensor [N, C, ...], its number of groups, and the nodes on the way that only it uses."""

    tensor: fx.Node
    groups: int
    parts: tuple[fx.Node, ...]


class Shuffle(Operator):
    """nn.ChannelShuffle, F.channel_shuffle, and the same as view, transpose and view."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        found = _shuffle_at(node, module, forms)
        return None if found is None else (found.tensor,)

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return CHANNEL_AXIS

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return operands[0][self._order(site)]

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        order = self._order(site)
        return Multiples(operands[0].pattern[order], operands[0].coefficient[order])

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        back = np.argsort(self._order(site))
        return [Demand.of(decision.exact[back], physical=decision.keep[back], present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.asarray(np.argsort(self._order(site))[operands[0]])

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.value(site.operands[0])

    @staticmethod
    def _order(site: Site) -> Layout:
        """int64 [C]: which channel of the operand each output channel is."""
        found = _shuffle_at(site.node, site.module, site.forms)
        if found is None:
            raise TypeError(f"{site.name} is no channel shuffle")
        return np.arange(site.channels).reshape(found.groups, -1).T.reshape(-1)


class Part(PassedBy):
    """A step inside a channel shuffle, which is settled at its last step."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        step = node
        for _ in range(3):
            if len(step.users) != 1 or module is not None:
                return None
            step = next(iter(step.users))
            found = _shuffle_at(step, None, forms) if step.op in ("call_function", "call_method") else None
            if found is not None and node in found.parts:
                return tuple(x for x in node.all_input_nodes if forms[x] is not None)
        return None

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return None


class PixelShuffle(Operator):
    """[N, C * r * r, H, W] to [N, C, H * r, W * r]: each channel is made of a block of r * r.

    Constants of a block that stays are appended to it as numbers, so that the layer before computes no row for them.
    """

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return _batched(node, forms) if _calls(node, module, nn.PixelShuffle, F.pixel_shuffle) else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        blocks = operands[0].reshape(site.channels, -1)
        return np.where((blocks == blocks[:, :1]).all(axis=1), blocks[:, 0], np.nan)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        block = len(operands[0]) // site.channels
        return [Demand.of(np.repeat(decision.exact, block), present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        block = site.operand_forms[0].channels // site.channels
        rows = (surgery.plan.layouts[site.node][:, None] * block + np.arange(block)).reshape(-1)
        return surgery.call_again(site, [filled(site, site.operands[0], rows, surgery)])


class PixelUnshuffle(Repeated):
    """[N, C, H * r, W * r] to [N, C * r * r, H, W]: each channel becomes a block of r * r."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return _batched(node, forms) if _calls(node, module, nn.PixelUnshuffle, F.pixel_unshuffle) else None

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.copy(site)


def _calls(node: fx.Node, module: nn.Module | None, kind: type[nn.Module], function: Any) -> bool:
    return node.target is function or (type(module) is kind and is_plain(module))


def _batched(node: fx.Node, forms: Forms) -> tuple[fx.Node, ...] | None:
    """The first argument, if it is a batch of images with their channels first."""
    first = node.args[0] if node.args else None
    form = forms[first] if isinstance(first, fx.Node) else None
    if not isinstance(first, fx.Node) or form is None or form.rank != 4 or form.axis != CHANNEL_AXIS:
        return None
    return (first,)


def _shuffle_at(node: fx.Node, module: nn.Module | None, forms: Forms) -> _Found | None:
    """The channel shuffle that ends at this node."""
    first, form = node.args[0] if node.args else None, forms[node]
    if not isinstance(first, fx.Node) or form is None or form.rank < 3:
        return None
    if type(module) is nn.ChannelShuffle or node.target in (F.channel_shuffle, torch.channel_shuffle):
        groups = module.groups if isinstance(module, nn.ChannelShuffle) else argument(node, 1, "groups", None)
        given = forms[first]
        fits = given is not None and given.axis == CHANNEL_AXIS and isinstance(groups, int)
        return _Found(first, groups, ()) if fits and is_plain(module or nn.Identity()) else None
    if called_name(node) not in ("view", "reshape", "flatten") or node.op == "call_module":
        return None
    parts = [first]
    if parts[-1].target == "contiguous" and isinstance(parts[-1].args[0], fx.Node):
        parts.append(parts[-1].args[0])
    swap = parts[-1]
    split = swap.args[0] if swap.args else None
    tensor = split.args[0] if isinstance(split, fx.Node) and split.args else None
    if not isinstance(split, fx.Node) or called_name(split) not in ("view", "reshape"):
        return None
    if not isinstance(tensor, fx.Node):
        return None
    if any(len(part.users) != 1 for part in (*parts, split)):
        return None
    groups = _groups(tensor, split, swap, node, forms)
    return None if groups is None else _Found(tensor, groups, (*parts, split))


def _groups(tensor: fx.Node, split: fx.Node, swap: fx.Node, join: fx.Node, forms: Forms) -> int | None:
    """Into how many groups `split` puts the channels, if `swap` and `join` make a shuffle of it for any input."""
    given, apart, joined = forms[tensor], forms[split], forms[join]
    if given is None or apart is None or joined is None or given.axis != CHANNEL_AXIS or apart.rank != given.rank + 1:
        return None
    groups = int(apart.shape[1])
    whole = (given.shape[0], groups, given.channels // groups, *given.shape[2:]) == tuple(apart.shape)
    if not whole or joined.shape != given.shape or groups * apart.shape[2] != given.channels:
        return None
    if [moved_axis(swap, apart.rank, axis) for axis in range(apart.rank)] != [0, 2, 1, *range(3, apart.rank)]:
        return None
    apart_sizes, joined_sizes = sizes_told(split), sizes_told(join)
    told = {known_number(size, forms) for size in apart_sizes[1:2]}, {known_number(x, forms) for x in apart_sizes[2:3]}
    if not told[0] <= {groups} or not told[1] <= {given.channels // groups, -1}:
        return None
    if called_name(join) == "flatten":
        return groups if tuple(join.args[1:]) == (1, 2) else None
    plain = joined_sizes[1:2] and known_number(joined_sizes[1], forms) in (given.channels, -1)
    open_sizes = [sizes[1:].count(-1) and sizes[0] != -1 and isinstance(sizes[0], int)
                  for sizes in (apart_sizes, joined_sizes)]  # fmt: skip
    return groups if plain and not any(open_sizes) else None
