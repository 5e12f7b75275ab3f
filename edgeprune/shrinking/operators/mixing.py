"""Layers that mix channels: convolutions, transposed convolutions and linear layers with dense weights.

Start with `Mixing.demands`, which decides the inputs a layer needs, and `shrunk_weights`, which builds the weights that
answer to it. A constant input is folded into the bias where the border can not be seen; behind a zero border the
removed constants of the tensor are merged into its one kept carrier, by scaling the kernels: exact for any image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.errors import ShrinkError
from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, nonzero_constant, varies
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import Operator, same_sizes, sole_tensor
from edgeprune.shrinking.operators.kernels import LAYERS, is_plain
from edgeprune.shrinking.operators.shared import agreed_inputs, needed_inputs
from edgeprune.shrinking.patterns import ONE
from edgeprune.shrinking.size import COPY_OF_ONE_NUMBER

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Mixing(Operator):
    """A dense layer with weights from every input channel to every output channel."""

    chooses_order = True

    def reads_any_order(self, site: Site) -> bool:
        return not site.shared

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if not isinstance(module, LAYERS) or type(module) not in LAYERS or not is_plain(module):
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None:
            return None
        if isinstance(module, nn.Linear):
            return (operand,) if form.axis == form.rank - 1 else None
        batched = form.rank == module.weight.dim() and form.axis == CHANNEL_AXIS
        return (operand,) if module.groups == 1 and batched else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        kernels, given = site.kernels, operands[0]
        moving = varies(given)
        if kernels.sees_border:
            moving = moving | nonzero_constant(given)
        result = kernels.bias
        steady = np.where(moving, 0.0, given)
        if steady.any():
            result = result + kernels.response(steady)
        result[kernels.reached_by(moving)] = np.nan
        return result

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        if site.shared:
            return [Demand.of(needed_inputs(site, decision), present=True)]
        kernels, given = site.kernels, operands[0]
        used = kernels.read_by(computed_rows(decision, output))
        moving = varies(given)
        merge = used & (moving | nonzero_constant(given)) if kernels.sees_border else used & moving
        return [Demand.of(used & ~moving, merge=merge, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        ordered = plan.orders.get(site.node)
        return np.flatnonzero(plan.decisions[site.node].keep) if ordered is None else ordered

    def reads(self, site: Site, plan: Plan) -> Layout:
        """The channels of its operand that it needs, and those that are there on purpose, to save a gather."""
        if site.shared:
            return _some(np.flatnonzero(agreed_inputs(site, plan).read), np.zeros(1, dtype=np.int64))
        operand = site.operands[0]
        have, source = plan.layouts[operand], plan.decisions[operand]
        used = site.kernels.read_by(computed_rows(plan.decisions[site.node], plan.constants[site.node]))
        used = used & ~self._cut_out(site, plan, used)
        merged, used = used & ~source.exact, used & source.exact
        merged = merged & plan.multiples[operand].patterned
        for pattern, carrier in source.carriers.items():
            used[carrier] |= bool((merged & self._merges(site, plan, pattern)).any())
        held = plan.held.get(operand)
        if held is not None and (used | held)[have].all():
            return have
        return _some(have[used[have]], have[:1])

    @staticmethod
    def _cut_out(site: Site, plan: Plan, used: Flags) -> Flags:
        """Numbers that are there for other readers and fold into the bias here, where reading them costs more.

        It costs a row's weights for each of them; not to read them costs a copy of the others, or nothing where that is
        made anyway.
        """
        operand, form = site.operands[0], site.form
        if site.kernels.sees_border or form is None:
            return np.zeros_like(used)
        there = np.zeros_like(used)
        there[plan.layouts[operand]] = True
        numbers = used & there & ~varies(plan.constants[operand]) & ~plan.held.get(operand, there & ~there)
        if not numbers.any():
            return np.zeros_like(used)
        rows = int(plan.decisions[site.node].keep.sum()) * int(site.kernels.weight[0, 0].numel())
        reading = int(numbers.sum()) * rows * form.pixels
        copying = COPY_OF_ONE_NUMBER * int((used & there & ~numbers).sum()) * site.operand_forms[0].pixels
        is_copied = not used[plan.layouts[operand]].all()
        return numbers if plan.smallest or is_copied or reading > copying else np.zeros_like(used)

    @staticmethod
    def _merges(site: Site, plan: Plan, pattern: int) -> Flags:
        """Inputs that go into the pattern's carrier if they are not there; constants away from borders fold instead."""
        same = plan.multiples[site.operands[0]].pattern == pattern
        return same if pattern != ONE or site.kernels.sees_border else np.zeros_like(same)

    def image_rule(self, site: Site) -> ImageRule | None:
        told = len(site.node.args) + len(site.node.kwargs) > 1  # a transposed convolution's output_size
        return None if told else site.kernels.image_rule or same_sizes(site)

    def absorbs(self, site: Site) -> bool:
        return not site.shared

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        plan, operand = surgery.plan, site.operands[0]
        rows, reads = plan.layouts[site.node], plan.reads(site)
        if site.shared:
            agreed, weight = agreed_inputs(site, plan), site.kernels.cut(rows, reads)
            _zero(weight, 1, ~agreed.read[reads])
            bias = site.kernels.bias + site.kernels.response(agreed.folded)
            given = filled(site, operand, reads, surgery)
        else:
            weight, bias = shrunk_weights(site, surgery, reads)
            bias = surgery.pass_on(site, bias)
            given = surgery.select(operand, reads)
        return surgery.call_module(site, site.kernels.rebuilt(weight, bias[rows]), given)


def computed_rows(decision: Decision, output: Vector) -> Flags:
    """bool [out]: outputs that are made from the inputs; the others are constants or only fill a place."""
    return decision.exact & varies(output)


def _some(channels: Layout, otherwise: Layout) -> Layout:
    return channels if len(channels) else otherwise


def shrunk_weights(site: Site, surgery: Surgery, reads: Layout) -> tuple[Tensor, Vector]:
    """Weights [rows, reads, *kernel] and bias [out] that give the kept outputs from the kept inputs.

    Raises:
        ShrinkError: Constants were removed in front of a zero border without a carrier for them.
    """
    plan, kernels, operand = surgery.plan, site.kernels, site.operands[0]
    rows = plan.layouts[site.node]
    decision, source = plan.decisions[site.node], plan.decisions[operand]
    output = plan.constants[site.node]
    computed = computed_rows(decision, output)
    weight = kernels.cut(rows, reads)
    _zero(weight, 1, ~source.exact[reads])
    bias = kernels.bias

    multiples = plan.multiples[operand]
    left = np.zeros_like(source.keep)
    left[reads] = source.exact[reads]
    gone = multiples.patterned if multiples.is_empty else multiples.patterned & ~left & kernels.read_by(computed)
    for pattern in np.unique(multiples.pattern[gone]) if np.count_nonzero(gone) else ():
        removed = np.where(left | (multiples.pattern != pattern), 0.0, multiples.coefficient)
        if pattern == ONE and not kernels.sees_border:
            bias = bias + kernels.response(removed)
            continue
        carrier = source.carriers.get(int(pattern))
        if carrier is None or gone[carrier]:
            raise ShrinkError(
                f"{site.name}: constants behind a zero border have no kept channel to stand for them",
                hint="this is a fault of edgeprune's analysis: report it with the model",
            )
        merged = kernels.added_up(rows, removed / multiples.coefficient[carrier])
        onto = weight[:, int(np.flatnonzero(reads == carrier)[0])]
        onto += merged.reshape(onto.shape).to(weight)
    _zero(weight, 0, ~computed[rows])
    bias = np.where(varies(output), bias, output) + plan.shift(site.node, site.channels)
    return weight, np.where(decision.valued, bias, 0.0)


def _zero(weight: Tensor, axis: int, channels: Flags) -> None:
    if np.count_nonzero(channels):
        weight.index_fill_(axis, torch.from_numpy(np.flatnonzero(channels)).to(weight.device), 0.0)
