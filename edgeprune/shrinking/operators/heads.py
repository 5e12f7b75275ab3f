"""Attention of several heads, recognised in a graph from its last step backwards. Start with `attention_at`.

The queries, keys and values come from one linear layer, [N, T, 3 * heads * width] viewed as [N, T, 3, heads, width],
permuted and taken apart; or each from a tensor of its own, [N, T, heads * width] viewed and transposed. They meet in
F.scaled_dot_product_attention, or in a product, a softmax and a product. Whatever differs from that is left to other
operators.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Vector
from edgeprune.shrinking.forms import Forms, moved_axis
from edgeprune.shrinking.operators.base import argument, called_name, sizes_told
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.operators.questions import known_number
from edgeprune.shrinking.operators.slicing import Slice

_VIEWS = ("view", "reshape")
_PRODUCTS = (operator.matmul, torch.matmul, "matmul")
_SCALINGS = (operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div")
_SOFTMAX = (F.softmax, torch.softmax, "softmax")
_PASSING = (F.dropout, "contiguous")
_PASSING_MODULES = (nn.Identity, nn.Dropout)
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_STEPS = frozenset(
    "view reshape permute transpose swapaxes swapdims unbind getitem mul truediv div matmul softmax dropout contiguous"
    " scaled_dot_product_attention Identity Dropout LayerNorm RMSNorm Softmax".split()
)
_LONGEST = 16
"""Steps that are followed from a view of queries to the join; an attention that is written out takes nine."""


@dataclass(frozen=True)
class Picked:
    """Queries, keys or values [N, heads, T, width].

    Attributes:
        node: The node that is them.
        view: The view that tells their heads apart.
        tensor: What is viewed, [N, T, ...].
        place: Which of the attention's tensors that is.
        start: Its first channel that is theirs.
        width: Channels of a head.
    """

    node: fx.Node
    view: fx.Node
    tensor: fx.Node
    place: int
    start: int
    width: int


@dataclass(frozen=True)
class Heads:
    """An attention.

    Attributes:
        count: Number of heads.
        tensors: What the queries, keys and values are read from: one, two or three tensors.
        packing: Steps between one view of all three and the three; none where each has its own.
        inside: All steps before the last.
        mixed: Queries or keys are normalised, so that each place of a head depends on all.
        masked: There is a mask; a query that it leaves no key adds no values up, so that zeros come out.
        join: The last step, [N, T, heads * width].
    """

    count: int
    queries: Picked
    keys: Picked
    values: Picked
    tensors: tuple[fx.Node, ...]
    packing: tuple[fx.Node, ...]
    inside: frozenset[fx.Node]
    mixed: bool
    masked: bool
    join: fx.Node

    @property
    def parts(self) -> tuple[Picked, Picked, Picked]:
        """Queries, keys and values."""
        return self.queries, self.keys, self.values

    def known(self, part: Picked, of_tensors: Sequence[Vector]) -> Vector:
        """[heads, width]: of what is known of the tensors, what is known of one part."""
        return of_tensors[part.place][part.start :][: self.count * part.width].reshape(self.count, part.width)


def attention_of(node: fx.Node, forms: Forms) -> Heads | None:
    """The attention that a node is a step of, before the last."""
    step = node
    for _ in range(_LONGEST):
        kind = type(step.meta["module"]).__name__ if step.op == "call_module" else called_name(step)
        if kind not in _STEPS or not step.users:
            return None
        step = next(iter(step.users))
        form = forms[step]
        if form is not None and form.rank == 3:
            heads = attention_at(step, forms)
            return heads if heads is not None and node in heads.inside else None
    return None


def attention_at(join: fx.Node, forms: Forms) -> Heads | None:
    """The attention whose heads this node joins.

    The answer is kept with the node: all steps must agree on it, and later ones know more of the forms.
    """
    if "heads" not in join.meta:
        join.meta["heads"] = _recognised(join, forms)
    found: Heads | None = join.meta["heads"]
    return found


def _recognised(join: fx.Node, forms: Forms) -> Heads | None:
    form, first = forms[join], join.args[0] if join.args else None
    joins = form is not None and form.rank == 3 and called_name(join) in (*_VIEWS, "flatten")
    if not joins or not isinstance(first, fx.Node):
        return None
    way = _Way(forms, [], [])
    met = _moved(way.back(first), (0, 2, 1, 3), way)
    before = None if met is None else forms[met]
    if met is None or before is None or not _joins(join, before.shape, forms):
        return None
    fused = met.target is F.scaled_dot_product_attention
    mask = _mask(met, forms) if fused else None
    if mask is not None and mask[-3:-2] not in ((), (1,)):  # of each head its own
        return None
    given = [one if isinstance(one, fx.Node) else None for one in (_fused(met) if fused else _written_out(met, way))]
    way.steps.append(met)
    found = [None if one is None else _picked(way.back(one, scaled=place < 2), way) for place, one in enumerate(given)]
    queries, keys, values = found if len(found) == 3 else (None, None, None)
    if queries is None or keys is None or values is None:
        return None
    heads = _heads(join, (queries, keys, values), before.shape, way)
    return heads if heads is None or mask is None else replace(heads, masked=True)


class _Way(NamedTuple):
    """The steps that were taken backwards, and those among them that normalise heads."""

    forms: Forms
    steps: list[fx.Node]
    norms: list[fx.Node]

    def back(self, node: fx.Node, *, scaled: bool = False) -> fx.Node:
        """The first node before this one, or itself, that does more than to pass on, to scale, or to normalise."""
        while True:
            module, first = node.meta.get("module"), node.args[0] if node.args else None
            if not isinstance(first, fx.Node):
                return node
            norm = scaled and type(module) in _NORMS and is_plain(module)
            passes = node.target in _PASSING or (type(module) in _PASSING_MODULES and is_plain(module))
            factor = node.args[1] if len(node.args) == 2 and scaled and node.target in _SCALINGS else None
            if not (norm or passes or (isinstance(factor, int | float) and not node.kwargs)):
                return node
            self.steps.append(node)
            self.norms.extend([node] * norm)
            node = first


class _Source(NamedTuple):
    """Queries, keys or values: their node, the view that tells the heads apart, the steps between, and their number
    where one view holds all three."""

    node: fx.Node
    view: fx.Node
    packing: tuple[fx.Node, ...]
    number: int | None


def _moved(node: fx.Node, order: Sequence[int], way: _Way) -> fx.Node | None:
    """What a permutation of axes is made of, if axis i of the result is axis order[i] of that."""
    first = node.args[0] if node.args else None
    form = way.forms[first] if isinstance(first, fx.Node) else None
    if not isinstance(first, fx.Node) or form is None or form.rank != len(order):
        return None
    if [moved_axis(node, form.rank, axis) for axis in order] != [*range(form.rank)]:
        return None
    way.steps.append(node)
    return first


def _fused(node: fx.Node) -> list[Any]:
    told = [argument(node, place, name, None) for place, name in enumerate(("query", "key", "value"))]
    return [] if node.kwargs.get("enable_gqa", False) else told


def _mask(node: fx.Node, forms: Forms) -> torch.Size | None:
    """The shape of the mask, if the example has one."""
    mask = argument(node, 3, "attn_mask", None)
    form = forms[mask] if isinstance(mask, fx.Node) else None
    return None if form is None else form.shape


def _written_out(node: fx.Node, way: _Way) -> list[Any]:
    """Queries, keys and values of softmax(queries @ keys.transpose(-2, -1) * scale) @ values."""
    if node.target not in _PRODUCTS or len(node.args) != 2 or not isinstance(node.args[0], fx.Node):
        return []
    weights = way.back(node.args[0])
    module = weights.meta.get("module")
    axis = module.dim if type(module) is nn.Softmax and is_plain(module) else argument(weights, 1, "dim", None)
    known = weights.target in _SOFTMAX or type(module) is nn.Softmax
    if not known or axis not in (-1, 3) or not weights.args or not isinstance(weights.args[0], fx.Node):
        return []
    way.steps.append(weights)
    norms = len(way.norms)
    product = way.back(weights.args[0], scaled=True)
    if product.target not in _PRODUCTS or len(product.args) != 2 or len(way.norms) != norms:
        return []
    way.steps.append(product)
    keys = _moved(product.args[1], (0, 1, 3, 2), way) if isinstance(product.args[1], fx.Node) else None
    return [product.args[0], keys, node.args[1]]


def _picked(node: fx.Node, way: _Way) -> _Source | None:
    """One of three in [3, N, heads, T, width], or a transposed view [N, T, heads, width]."""
    first, number = node.args[0] if node.args else None, node.args[1] if len(node.args) > 1 else None
    if not isinstance(first, fx.Node):
        return None
    if node.target is not operator.getitem:
        view = _moved(node, (0, 2, 1, 3), way)
        return None if view is None else _Source(node, view, (), None)
    packing: tuple[fx.Node, ...] = ()
    if called_name(first) == "unbind" and argument(first, 1, "dim", 0) == 0 and isinstance(first.args[0], fx.Node):
        packing, first = (first,), first.args[0]
    view = _moved(first, (2, 0, 3, 1, 4), way)
    if view is None or type(number) is not int or number not in range(3):
        return None
    way.steps.extend((node, *packing))
    return _Source(node, view, (*packing, first), number)


def _heads(join: fx.Node, sources: tuple[_Source, _Source, _Source], met: torch.Size, way: _Way) -> Heads | None:
    """The attention of three sources, if every step between serves it alone."""
    count = int(met[1])
    tensors: dict[fx.Node, int] = {}
    parts = []
    for source in sources:
        tensor, form = source.view.args[0] if source.view.args else None, way.forms[source.node]
        width = 0 if form is None else int(form.shape[-1])
        if not isinstance(tensor, fx.Node) or not _tells_apart(source, tensor, (count, width), way.forms):
            return None
        place = tensors.setdefault(tensor, len(tensors))
        parts.append(Picked(source.node, source.view, tensor, place, (source.number or 0) * count * width, width))
    packed = sources[0].number is not None
    alike = {(source.view, source.packing) for source in sources} if packed else {source.view for source in sources}
    numbers = {source.number for source in sources}
    if (len(alike), numbers) != ((1, {0, 1, 2}) if packed else (3, {None})):
        return None
    inside = frozenset([*way.steps, *(source.view for source in sources)])
    if not all(inside.issuperset(user for user in step.users if user is not join) for step in inside):
        return None
    queries, keys, values = parts
    packing, mixed = sources[0].packing, bool(way.norms)
    return Heads(count, queries, keys, values, tuple(tensors), packing, inside, mixed, False, join)


def _tells_apart(source: _Source, tensor: fx.Node, heads: tuple[int, int], forms: Forms) -> bool:
    """Whether the view of a tensor [N, T, channels] puts each head's channels together."""
    before, after, last = forms[tensor], forms[source.view], heads if source.number is None else (3, *heads)
    if before is None or after is None or before.rank != 3 or not _made_linearly(tensor, forms):
        return False
    told = [known_number(size, forms) for size in sizes_of(source.view)[2:]]
    fits = len(told) == len(last) and all(number in (size, -1) for number, size in zip(told, last, strict=True))
    return fits and tuple(after.shape) == (*before.shape[:2], *last)


def _made_linearly(tensor: fx.Node, forms: Forms) -> bool:
    """Whether it is what a linear layer makes, or some channels of that: these stand last, settled or not yet."""
    made, first = tensor, tensor.args[0] if tensor.args else None
    if tensor.op != "call_module" and isinstance(first, fx.Node) and Slice().match(tensor, None, forms):
        made = first.args[0] if forms[first] is None and isinstance(first.args[0], fx.Node) else first
    return type(made.meta.get("module")) is nn.Linear


def _joins(join: fx.Node, before: torch.Size, forms: Forms) -> bool:
    """Whether [N, heads, T, width], its heads and images swapped, becomes [N, T, heads * width]."""
    form, wide = forms[join], int(before[1] * before[3])
    if form is None or len(before) != 4 or tuple(form.shape) != (before[0], before[2], wide):
        return False
    if called_name(join) == "flatten":
        return [argument(join, 1, "start_dim", 0), argument(join, 2, "end_dim", -1)] in ([2, -1], [2, 3], [-2, -1])
    sizes = sizes_of(join)
    return len(sizes) == 3 and known_number(sizes[2], forms) in (wide, -1)


def sizes_of(view: fx.Node) -> list[Any]:
    """The sizes that a view is given; none where it is no view."""
    return [] if called_name(view) not in _VIEWS or view.kwargs else sizes_told(view)
