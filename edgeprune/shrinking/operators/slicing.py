"""Parts of the channels: x[:, a:b], chunk, split, narrow.

Start with `picked_channels`. A part is a slice of the shrunk tensor where what is left of it stands together, as it
does in ascending order; otherwise it is gathered.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector
from edgeprune.shrinking.forms import Form, Forms
from edgeprune.shrinking.operators.base import Operator, PassedBy, argument, has_channels
from edgeprune.shrinking.operators.questions import known_number
from edgeprune.shrinking.patterns import Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery

_SPLITS: dict[Any, str] = {
    "chunk": "chunks", torch.chunk: "chunks", "split": "split_size", torch.split: "split_size_or_sections",
    "tensor_split": "indices_or_sections", torch.tensor_split: "indices_or_sections",
}  # fmt: skip


class Split(PassedBy):
    """chunk, split and tensor_split along the channels, if each part is taken by its number."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.op not in ("call_function", "call_method") or node.target not in _SPLITS:
            return None
        tensor = node.args[0]
        form = forms[tensor] if isinstance(tensor, fx.Node) else None
        axis = argument(node, 2, "dim", 0)
        if not isinstance(tensor, fx.Node) or form is None or not form.channels or not isinstance(axis, int):
            return None
        if axis % form.rank != form.axis:  # sections of another axis do not fit the channels
            return None
        taken = all(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)
        plain = _parts(node, form, forms) is not None
        return (tensor,) if taken and plain else None


class Slice(Operator):
    """Some channels of a tensor, and all of the rest."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        tensor = _sliced(node, forms)
        return None if tensor is None or picked_channels(node, forms[tensor], forms) is None else (tensor,)

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return operands[0][self._picked(site)]

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        picked = self._picked(site)
        return Multiples(operands[0].pattern[picked], operands[0].coefficient[picked])

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        def of_tensor(channels: Flags) -> Flags:
            flags = np.zeros(len(operands[0]), dtype=np.bool_)
            flags[self._picked(site)] = channels
            return flags

        return [Demand.of(of_tensor(decision.exact), physical=of_tensor(decision.keep), present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        inside = self._places(site, operands[0])
        number = np.full(site.operand_forms[0].channels, -1, dtype=np.int64)
        number[self._picked(site)] = np.arange(site.channels)
        held: Layout = number[operands[0][inside]]
        together = len(inside) == 0 or inside[-1] - inside[0] + 1 == len(inside)
        return held if together else held[plan.decisions[site.node].keep[held]]

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        operand, form = site.operands[0], site.operand_forms[0]
        have, want = surgery.plan.layouts[operand], self._picked(site)[surgery.plan.layouts[site.node]]
        places = self._places(site, have)
        if not len(places) or not np.array_equal(have[places[0] : places[-1] + 1], want):
            return surgery.select(operand, want)
        if len(want) == len(have):
            return surgery.value(operand)
        part = slice(int(places[0]), int(places[-1]) + 1)
        index = (*[slice(None)] * form.axis, part)
        return surgery.call_function(site, operator.getitem, surgery.value(operand), index)

    def _places(self, site: Site, have: Layout) -> Layout:
        """Where the picked channels stand among those that the tensor holds."""
        return np.flatnonzero(np.isin(have, self._picked(site)))

    @staticmethod
    def _picked(site: Site) -> Layout:
        picked = picked_channels(site.node, site.operand_forms[0], site.forms)
        if picked is None:
            raise TypeError(f"{site.name} picks no channels")
        return picked


def picked_channels(node: fx.Node, form: Form | None, forms: Forms) -> Layout | None:
    """int64 [K]: the channels of a tensor of this form that the node takes, each once; None if it takes none alone."""
    if form is None or not form.channels:
        return None
    channels = torch.arange(form.channels)
    first = node.args[0]
    picked: Tensor | None = None
    if node.target is operator.getitem and isinstance(first, fx.Node) and first.target in _SPLITS:
        parts, place = _parts(first, form, forms), node.args[1]
        picked = parts[place] if parts is not None and isinstance(place, int) else None
    elif node.target is operator.getitem:
        place = _channel_place(node.args[1], form, forms)
        picked = None if place is None else channels[place]
    elif node.target in ("narrow", torch.narrow):
        axis, start, length = (known_number(argument(node, at, name, None), forms) for at, name in _NARROW)
        if axis is not None and axis % form.rank == form.axis and start is not None and length is not None:
            picked = channels.narrow(0, start, length)
    return None if picked is None else np.asarray(picked.numpy())


_NARROW = ((1, "dim"), (2, "start"), (3, "length"))


def _sliced(node: fx.Node, forms: Forms) -> fx.Node | None:
    """The tensor that a node takes a part of, through a split if that is along its channels."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or node.op not in ("call_function", "call_method"):
        return None
    if node.target is operator.getitem and first.target in _SPLITS and forms[first] is None:
        return first.args[0] if Split().match(first, None, forms) else None  # type: ignore[return-value]
    return first if has_channels(first, forms) else None


def _parts(split: fx.Node, form: Form, forms: Forms) -> Sequence[Tensor] | None:
    """int64: the channels of each part."""
    sizes = argument(split, 1, _SPLITS[split.target], None)
    told = [known_number(size, forms) for size in (sizes if isinstance(sizes, list | tuple) else [sizes])]
    if None in told:
        return None
    target: Any = split.target
    target = getattr(torch, target) if isinstance(target, str) else target
    parts: Sequence[Tensor] = target(torch.arange(form.channels), told if isinstance(sizes, list | tuple) else told[0])
    return parts


def _channel_place(given: Any, form: Form, forms: Forms) -> slice | list[int] | None:
    """The index of the channel axis, if all other axes are taken whole and no channel twice."""
    places = list(given) if isinstance(given, tuple) else [given]
    if Ellipsis in [place for place in places if not isinstance(place, fx.Node | list)]:
        at = places.index(Ellipsis)
        places[at : at + 1] = [slice(None)] * (form.rank - len(places) + 1)
    others = [place for axis, place in enumerate(places) if axis != form.axis]
    if len(places) <= form.axis or any(not isinstance(x, slice) or x != slice(None) for x in others):
        return None
    place = places[form.axis]
    if isinstance(place, list):
        plain = all(isinstance(channel, int) and not isinstance(channel, bool) for channel in place)
        return place if plain and len({channel % form.channels for channel in place}) == len(place) else None
    if not isinstance(place, slice):
        return None
    ends = [None if end is None else known_number(end, forms) for end in (place.start, place.stop, place.step)]
    told = all(found is not None or end is None for found, end in zip(ends, _ends(place), strict=True))
    return slice(*ends) if told else None


def _ends(place: slice) -> tuple[Any, Any, Any]:
    return place.start, place.stop, place.step
