"""Operators that take several tensors channel by channel: the base that brings their channels into one order.

Start with `Aligned.place`. Output channel c is made of channel c of every operand; an operand with one channel serves
them all. A constant channel that an operand does not hold is appended to it as a number by a `Gather`; the smaller
tensor is gathered where that is enough, and an operand that holds nothing at all becomes a buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx

from edgeprune.shrinking.additions import Gather
from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector, varies
from edgeprune.shrinking.forms import Form
from edgeprune.shrinking.operators.base import Operator

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery

FILLER = 1.0
"""What stands for a channel whose value does not matter: a divisor that gives a finite number."""


class Aligned(Operator):
    """Output channel c is a function of channel c of each operand."""

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        computed = decision.exact & varies(output)
        asked = []
        for form, shapes in zip(site.operand_forms, self.shapes(site), strict=True):
            # what is made of parameters goes on training, so it is not folded
            wanted = decision.keep if form.fixed else computed
            value = wanted if form.channels == site.channels else np.full(form.channels, wanted.any())
            physical = value if form.fixed else None
            present = shapes or (form.channels == 0 and bool(computed.any()))
            asked.append(Demand.of(value, physical=physical, present=present))
        return asked

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        decision = plan.decisions[site.node]
        wide = [place for place, form in enumerate(site.operand_forms) if form.channels == site.channels]
        held = [operands[place] for place in wide]
        kept = np.flatnonzero(decision.keep)
        if all(np.array_equal(channels, held[0]) for channels in held) and np.isin(kept, held[0]).all():
            return held[0]
        for place in sorted(wide, key=lambda place: -site.operand_forms[place].shape.numel()):
            if np.array_equal(np.sort(operands[place]), kept):
                return operands[place]
        return kept

    def shapes(self, site: Site) -> list[bool]:
        """Which operands must be there for their batch and image size, even if all their channels are constants."""
        return gives_shape(site)

    def place(self, site: Site, surgery: Surgery) -> list[fx.Node]:
        """The operands with the output's channels in the output's order."""
        return [self._placed(site, place, surgery) for place in range(len(site.operands))]

    def _placed(self, site: Site, place: int, surgery: Surgery) -> fx.Node:
        plan, operand, form = surgery.plan, site.operands[place], site.operand_forms[place]
        held, layout = plan.layouts[operand], plan.layouts[site.node]
        if form.channels == 0:
            return surgery.value(operand)
        matters = plan.decisions[site.node].exact
        if form.channels != site.channels:
            layout, matters = np.zeros(1, dtype=np.int64), np.full(1, matters.any())
        known = plan.constants[operand][layout]
        numbers = np.where(varies(known), FILLER, known)
        source = np.full(form.channels, -1, dtype=np.int64)
        right = plan.decisions[operand].exact | ~matters
        source[held] = np.where(right[held], np.arange(len(held)), -1)
        return _gathered(site, operand, source[layout], numbers, form, surgery)


def filled(site: Site, operand: fx.Node, want: Layout, surgery: Surgery) -> fx.Node:
    """What is left of an operand with exactly the channels `want`; what it does not hold is appended as numbers.

    A channel that varies and is not held must not matter: it becomes zero.
    """
    plan, form = surgery.plan, surgery.plan.network.by_node[operand].form
    if form is None:
        raise TypeError(f"{operand.name} is no tensor")
    held, known = plan.layouts[operand], plan.constants[operand]
    moving = varies(known)
    right = plan.decisions[operand].exact | moving
    source = np.full(form.channels, -1, dtype=np.int64)
    source[held] = np.where(right[held], np.arange(len(held)), -1)
    return _gathered(site, operand, source[want], np.where(moving, 0.0, known)[want], form, surgery)


def gives_shape(site: Site) -> list[bool]:
    """Which operands of an elementwise function must be there for the output to have its batch and image size.

    A gate [N, C, 1, 1] needs the image beside it; of two images one is enough, which is there if the output varies. An
    image of one pixel may be larger for another input, and so may a batch of one beside `a.mean(0, keepdim=True)`.
    """
    rank = 0 if site.form is None else site.form.rank
    shape = () if site.form is None else site.form.shape
    axis = 0 if site.form is None else site.form.axis
    full = [_rest(form, axis, rank) == [size for place, size in enumerate(shape) if place != axis]
            for form in site.operand_forms]  # fmt: skip
    free = [not form.fixed for form in site.operand_forms]
    if any(form.batched for form in site.operand_forms):
        full = [flag and form.batched for flag, form in zip(full, site.operand_forms, strict=True)]
    whole = [flag and own for flag, own in zip(full, free, strict=True)]
    if _is_one_pixel(site.form) or not any(whole):
        return free
    return [place == whole.index(True) for place in range(len(whole))]


def sizes_may_differ(site: Site) -> bool:
    """Whether operands of equal shapes may have a larger batch or image than each other for other inputs."""
    return _is_one_pixel(site.form) or not all(form.batched for form in site.operand_forms)


def _is_one_pixel(form: Form | None) -> bool:
    if form is None or form.rank <= 2:
        return False
    return any(size == 1 for place, size in enumerate(form.shape) if place not in (0, form.axis))


def _rest(form: Form, axis: int, rank: int) -> list[int]:
    shape = [1] * (rank - form.rank) + list(form.shape)
    return [size for place, size in enumerate(shape) if place != axis]


def _gathered(site: Site, operand: fx.Node, source: Layout, numbers: Vector, form: Form, surgery: Surgery) -> fx.Node:
    absent = source < 0
    if absent.all() and not surgery.plan.decisions[operand].live:
        return surgery.buffer(f"{site.node.name}_constant", surgery.constant_channels(numbers, form))
    width = len(surgery.plan.layouts[operand])
    if not absent.any() and np.array_equal(source, np.arange(width)):
        return surgery.value(operand)
    fills = np.unique(numbers[absent])
    index = np.where(absent, width + np.searchsorted(fills, numbers), source)
    fill = surgery.constant_channels(fills, form) if len(fills) else None
    gather = Gather(torch.from_numpy(index).to(surgery.device), width, fill, axis=form.axis)
    return surgery.call_new(site, gather, surgery.value(operand))
