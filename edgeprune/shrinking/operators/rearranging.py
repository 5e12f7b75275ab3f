"""Operators that move axes and leave the channel axis whole: permute, transpose, unsqueeze, squeeze, view, expand.

Start with `Rearrange`. A width that a view spells out is replaced by the width that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Vector
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, Forms, moved_axis
from edgeprune.shrinking.operators.base import ChannelWise, called_name, has_channels, sizes_told
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.operators.questions import told_channels
from edgeprune.shrinking.patterns import Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.rewrite import Surgery

_VIEWS = ("view", "reshape")


class Rearrange(ChannelWise):
    """The same numbers in another order or shape, in which each channel is still one slice of one axis."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        first, after = node.args[0] if node.args else None, forms[node]
        before = forms[first] if isinstance(first, fx.Node) else None
        if not isinstance(first, fx.Node) or before is None or after is None or not has_channels(first, forms):
            return None
        if node.op == "call_module" and not (type(module) is nn.Flatten and is_plain(module)):
            return None
        axis = _axis_after(node, before, after.shape)
        if axis is None or axis >= after.rank or after.shape[axis] != before.channels:
            return None
        if _name(node) in _VIEWS and not _names_channels(node, axis, before, forms):
            return None
        return (first,)

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return _axis_after(node, operands[0], shape)

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return operands[0]

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        return patterns.after(site.node, operands[0])

    def keeps_batch(self, site: Site) -> bool:
        before, name = site.operand_forms[0], _name(site.node)
        if name in (*_VIEWS, "flatten"):
            return site.form is not None and site.form.axis == before.axis == CHANNEL_AXIS
        if name in ("squeeze", "unsqueeze"):
            place = site.node.args[1] if len(site.node.args) == 2 else 0
            return isinstance(place, int) and place > 0
        return moved_axis(site.node, before.rank, 0) == 0

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        name, sizes = _name(site.node), _sizes(site.node)
        if site.form is None or sizes is None or name not in (*_VIEWS, "expand"):
            return surgery.copy(site)
        layout = surgery.plan.layouts[site.node]
        # an expand takes -1 for the width that it finds; a view for all that is left, which is right if nothing is gone
        whole = sizes[site.form.axis] == -1 and np.array_equal(layout, np.arange(site.channels))
        width = -1 if name == "expand" or whole else len(layout)
        told = [surgery.value(size) if isinstance(size, fx.Node) else size for size in sizes]
        told[site.form.axis] = width
        return surgery.call_method(site, name, surgery.value(site.operands[0]), *told)


def _name(node: fx.Node) -> str:
    """What a call is named, be it a function or a method; a flatten, be it a module."""
    return "flatten" if node.op == "call_module" else called_name(node)


def _axis_after(node: fx.Node, before: Form, after: torch.Size) -> int | None:
    name, axis = _name(node), before.axis
    given: Any = node.args[1:]
    if name == "unsqueeze" and len(given) == 1 and isinstance(given[0], int):
        return axis + (given[0] % (before.rank + 1) <= axis)
    if name == "squeeze" and len(given) == 1 and not node.kwargs:
        dims = given[0] if isinstance(given[0], list | tuple) else given
        gone = {dim % before.rank for dim in dims if before.shape[dim] == 1}
        return None if axis in gone else axis - sum(dim < axis for dim in gone)
    if name == "expand" and _sizes(node) is not None:
        return axis + len(after) - before.rank
    if name in _VIEWS and _sizes(node) is not None:
        return _axis_of_view(before, after, is_parameter=_is_parameter(node))
    if name == "flatten":
        return _axis_of_view(before, after, is_parameter=_is_parameter(node))
    return moved_axis(node, before.rank, axis)


def _is_parameter(node: fx.Node) -> bool:
    return isinstance(node.args[0], fx.Node) and node.args[0].op == "get_attr"


def _axis_of_view(before: Form, after: torch.Size, *, is_parameter: bool) -> int | None:
    """Where a view leaves the channels whole for any batch and image: first after the batch, or last."""
    if is_parameter:
        fronts = [after[:place].numel() for place in range(len(after))]
        fits = [place for place, front in enumerate(fronts) if front == before.shape[: before.axis].numel()]
        return next((place for place in fits if after[place] == before.channels), None)
    if before.axis == CHANNEL_AXIS and len(after) > CHANNEL_AXIS and after[:2] == before.shape[:2]:
        return CHANNEL_AXIS
    return len(after) - 1 if before.axis == before.rank - 1 else None


def _sizes(node: fx.Node) -> list[Any] | None:
    """The sizes that a view or an expand is given, or None if they are not told one by one."""
    given = sizes_told(node)
    plain = all(isinstance(size, int | fx.Node) and not isinstance(size, bool) for size in given)
    return given if plain and given and not node.kwargs else None


def _names_channels(node: fx.Node, axis: int, before: Form, forms: Forms) -> bool:
    """Whether a view asks for the channels as such: their number, or what is left where the batch is told."""
    sizes = _sizes(node)
    after = forms[node]
    if sizes is None or after is None or len(sizes) != after.rank:
        return False
    asked = sizes[axis]
    named = (
        told_channels(asked, forms) == before.channels if isinstance(asked, fx.Node) else asked in (before.channels, -1)
    )
    # a batch of one that is spelled out would move channels into the open size with a batch of two
    open_batch = axis == before.rank - 1 or _is_parameter(node) or not isinstance(sizes[0], int) or sizes[0] == -1
    return named and (open_batch or -1 not in sizes)
