"""Questions about shapes: x.size(0), x.shape[2:], x.dim(). The tensor only has to be there.

Start with `ShapeQuestion`. How many channels a tensor has does not depend on the input, so the answer to that is the
masked network's number: arithmetic on it stays right, and what uses it as a size has a rule of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.forms import Forms
from edgeprune.shrinking.operators.base import Operator, has_channels

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery

_METHODS = frozenset({"dim", "ndimension", "is_floating_point", "get_device"})
_ATTRIBUTES = frozenset({"ndim", "dtype", "device", "is_cuda", "requires_grad"})


class _Number(Operator):
    """Base of nodes whose result is no tensor."""

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return np.zeros(0)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return [Demand.of(np.zeros(len(operand), dtype=np.bool_), present=True) for operand in operands]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.zeros(0, dtype=np.int64)


class ShapeQuestion(_Number):
    """The shape of a tensor, its size along one axis, or what else does not depend on its channels."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        tensor = node.args[0] if node.args else None
        if not isinstance(tensor, fx.Node) or not has_channels(tensor, forms):
            return None
        if node.op == "call_method" and node.target in _METHODS:
            return (tensor,)
        if node.op == "call_function" and node.target is getattr and node.args[1] in _ATTRIBUTES:
            return (tensor,)
        if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
            return (tensor,) if isinstance(node.args[1], int) else None
        return (tensor,) if _is_shape(node) and _sizes_are_told_apart(node, forms) else None

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        form = site.operand_forms[0]
        if (
            len(site.node.args) == 2
            and site.node.target == "size"
            and _picked(site.node.args[1], form.rank) == form.axis
        ):
            return surgery.call_function(site, int, form.channels)
        return surgery.copy(site)


class ShapeAnswer(_Number):
    """x.shape[1]: the number of channels, which other operators are told as it was."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return () if node.target is operator.getitem and told_channels(node, forms) is not None else None

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        shape: fx.Node = site.node.args[0]  # type: ignore[assignment]
        form = surgery.plan.network.by_node[shape].operand_forms[0]
        return surgery.call_function(site, int, form.channels)


def told_channels(node: object, forms: Forms) -> int | None:
    """The number of channels, if the node asks a tensor for that, in any spelling."""
    if not isinstance(node, fx.Node) or len(node.args) != 2 or not isinstance(node.args[1], int):
        return None
    tensor = node.args[0]
    if node.op == "call_function" and node.target is operator.getitem:
        tensor = tensor.args[0] if isinstance(tensor, fx.Node) and _is_shape(tensor) else None
    elif node.op != "call_method" or node.target != "size":
        return None
    form = forms[tensor] if isinstance(tensor, fx.Node) else None
    if form is None or not form.channels or _picked(node.args[1], form.rank) != form.axis:
        return None
    return form.channels


def known_number(value: object, forms: Forms) -> int | None:
    """The whole number that an argument is for every input: plain, or computed from numbers of channels."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, fx.Node):
        return None
    told = told_channels(value, forms)
    if told is not None or value.op != "call_function" or value.target not in _ARITHMETIC or value.kwargs:
        return told
    numbers = [known_number(argument, forms) for argument in value.args]
    compute: Any = value.target
    return None if None in numbers else int(compute(*numbers))


_ARITHMETIC = frozenset({operator.add, operator.sub, operator.mul, operator.floordiv, int})


def _is_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target == "size" and len(node.args) == 1 and not node.kwargs
    return node.op == "call_function" and node.target is getattr and node.args[1] == "shape"


def _picked(place: object, rank: int) -> int | None:
    return place % rank if isinstance(place, int) else None


def _sizes_are_told_apart(shape: fx.Node, forms: Forms) -> bool:
    tensor = shape.args[0]
    form = forms[tensor] if isinstance(tensor, fx.Node) else None
    for user in shape.users:
        if form is None or user.target is not operator.getitem or user.args[0] is not shape:
            return False
        place = user.args[1]
        if isinstance(place, slice):
            ends = (place.start, place.stop, place.step)
            if any(isinstance(end, fx.Node) for end in ends) or form.axis in range(form.rank)[place]:
                return False
        elif not isinstance(place, int):
            return False
    return True
