"""Operators that move numbers without changing them: flatten, crop and concatenation of channels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, Forms
from edgeprune.shrinking.operators.base import ChannelWise, Operator, Repeated, argument, has_channels, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.patterns import Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Flatten(Repeated):
    """[N, C, H, W] to [N, C*H*W]: each channel becomes H*W features that stay or go together."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, fx.Node) or not has_channels(first, forms):
            return None
        flattens = (
            (type(module) is nn.Flatten and is_plain(module))
            or (node.op == "call_function" and node.target in (torch.flatten, torch.reshape))
            or (node.op == "call_method" and node.target in ("flatten", "view", "reshape"))
        )
        before, after = forms[first], forms[node]
        if not flattens or before is None or after is None or before.axis != CHANNEL_AXIS:
            return None
        return (first,) if tuple(after.shape) == (before.shape[0], before.shape[1:].numel()) else None

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return CHANNEL_AXIS

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        # view(-1, 400) names a width that is gone, so every spelling becomes the one that names none
        return surgery.call_function(site, torch.flatten, surgery.value(site.operands[0]), 1)


class Crop(ChannelWise):
    """x[:, :, a:b:c, ...] and narrow: a part of the image, all of the channels; its ends may be sizes from forward."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.target not in (operator.getitem, "narrow", torch.narrow) or node.op == "call_module":
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None:
            return None
        if node.target is not operator.getitem:
            cut = argument(node, 1, "dim", None)
            return (operand,) if isinstance(cut, int) and cut % form.rank not in (0, form.axis) else None
        places = _places(node.args[1], form.rank)
        if places is None:
            return None
        of_axes = [place for place in places if place is not None]
        whole = slice(None)
        return (operand,) if of_axes[0] == whole and of_axes[form.axis] == whole else None

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        """Moved up by each new axis before the channels, and down by each that an integer takes away."""
        if node.target is not operator.getitem:
            return operands[0].axis
        places, read, axis = _places(node.args[1], operands[0].rank) or [], 0, 0
        for place in places:
            if place is None:
                axis += 1
            elif read == operands[0].axis:
                break
            else:
                read, axis = read + 1, axis + (not isinstance(place, int))
        return axis

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return operands[0]

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        return patterns.after(site.node, operands[0])

    def keeps_batch(self, site: Site) -> bool:
        return site.node.target is not operator.getitem or None not in (_places(site.node.args[1], 8) or [None])


class Concat(Operator):
    """torch.cat along the channels."""

    follows_order = True

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.op != "call_function" or node.target not in (torch.cat, torch.concat):
            return None
        parts = argument(node, 0, "tensors", None)
        axis = argument(node, 1, "dim", 0)
        if not isinstance(parts, list | tuple) or not isinstance(axis, int):
            return None
        found = [forms[part] for part in parts if isinstance(part, fx.Node)]
        if len(found) != len(parts) or not all(form and form.axis == axis % form.rank for form in found):
            return None
        return tuple(part for part in parts if isinstance(part, fx.Node))

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return np.concatenate(operands)

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        return Multiples(
            np.concatenate([operand.pattern for operand in operands]),
            np.concatenate([operand.coefficient for operand in operands]),
        )

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        ends = np.cumsum([len(operand) for operand in operands])[:-1]
        exact, keep = np.split(decision.exact, ends), np.split(decision.keep, ends)
        return [Demand.of(e, physical=k, present=bool(k.any())) for e, k in zip(exact, keep, strict=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        widths = [form.channels for form in site.operand_forms]
        starts = np.cumsum([0, *widths[:-1]])
        return np.concatenate([start + operand for start, operand in zip(starts, operands, strict=True)])

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        parts = [surgery.value(part) for part in site.operands if len(surgery.plan.layouts[part])]
        return (
            parts[0] if len(parts) == 1 else surgery.call_function(site, torch.cat, parts, site.operand_forms[0].axis)
        )


def _places(given: Any, rank: int) -> list[slice | int | None] | None:
    """The index of x[...]: a place for each axis of x and None for each new one; None if it is no plain index.

    The ends of a slice may be nodes: where a tensor stood as one, the node would have a second tensor operand.
    """
    listed = list(given) if isinstance(given, tuple) else [given]
    if any(not isinstance(place, slice | int | EllipsisType | None) or isinstance(place, bool) for place in listed):
        return None
    missing = rank - sum(isinstance(place, slice | int) for place in listed)
    if missing < 0 or sum(place is Ellipsis for place in listed) > 1:
        return None
    at = listed.index(Ellipsis) if Ellipsis in listed else len(listed)
    return listed[:at] + [slice(None)] * missing + listed[at + 1 :]
