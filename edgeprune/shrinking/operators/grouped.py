"""Grouped and depthwise convolutions: each group keeps its own outputs and the inputs that they need.

Start with `buckets_of`. PyTorch wants equal widths, so groups of equal widths become one grouped convolution each, the
parts of a `GroupedParts`; where all are equal, as in a depthwise convolution, it stays one convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, nonzero_constant, varies
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import Operator, sole_tensor
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS, is_plain, picked
from edgeprune.shrinking.operators.mixing import computed_rows
from edgeprune.shrinking.operators.shared import agreed_inputs, needed_inputs
from edgeprune.shrinking.ragged import GroupedParts

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Grouped(Operator):
    """A convolution in which each group of outputs reads its own group of inputs."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if type(module) not in CONVOLUTIONS or not is_plain(module):
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None:
            return None
        batched = form.axis == CHANNEL_AXIS and form.rank == getattr(module, "weight").dim()  # noqa: B009
        return (operand,) if batched and _has_groups(module) else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        kernels, given = site.kernels, _by_group(site, operands[0])
        moving = varies(given)
        if kernels.sees_border:
            moving = moving | nonzero_constant(given)
        steady = np.where(moving, 0.0, given)
        result: Vector = kernels.bias
        if steady.any():
            result += (_per_output(site, steady) * kernels.summed()).sum(axis=1)
        result[(_per_output(site, moving) & kernels.connected).any(axis=1)] = np.nan
        return result

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        if site.shared:
            return [Demand.of(needed_inputs(site, decision), present=True)]
        read = read_inputs(site, decision, output, operands[0])
        # what varies and is read matters; constants that are read stand for others, or fill a place
        physical = read & ~varies(operands[0])
        filled = _by_group(site, decision.keep).any(axis=1) & ~_used(site, decision, output).any(axis=1)
        physical = physical | (read & np.repeat(filled, len(read) // _groups(site)))
        return [Demand.of(read, physical=physical, present=True)]

    def order_wanted(self, site: Site, decision: Decision, output: Vector, given: Vector) -> Layout | None:
        """The inputs of groups of equal widths side by side."""
        if site.shared:
            return None
        buckets = bucketed(site, decision, read_inputs(site, decision, output, given), np.arange(len(given)))
        return np.concatenate([bucket.inputs.reshape(-1) for bucket in buckets])

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.concatenate([bucket.rows.reshape(-1) for bucket in buckets_of(site, plan)])

    def reads(self, site: Site, plan: Plan) -> Layout:
        """The channels that the groups read, group by group."""
        return np.concatenate([bucket.inputs.reshape(-1) for bucket in buckets_of(site, plan)])

    def image_rule(self, site: Site) -> ImageRule | None:
        return site.kernels.image_rule

    def absorbs(self, site: Site) -> bool:
        return not site.shared

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        plan, kernels = surgery.plan, site.kernels
        weights, bias = self._weights(site, plan)
        bias = surgery.pass_on(site, bias)
        layers, buckets = [], buckets_of(site, plan)
        for bucket in buckets:
            rows = bucket.rows.reshape(-1)
            local = torch.from_numpy(np.repeat(bucket.inputs % weights.shape[1], bucket.rows.shape[1], axis=0))
            cut = picked(weights, rows)
            if local.shape[1] != cut.shape[1] or weights.shape[1] > 1:
                index = local.to(cut.device).reshape(*local.shape, *[1] * (cut.dim() - 2))
                cut = cut.gather(1, index.expand(-1, -1, *cut.shape[2:]))
            layers.append(kernels.rebuilt(cut, bias[rows], groups=len(bucket.rows)))
        layer = layers[0] if len(layers) == 1 else GroupedParts(layers)
        reads = np.concatenate([bucket.inputs.reshape(-1) for bucket in buckets])
        choose = (
            filled(site, site.operands[0], reads, surgery) if site.shared else surgery.select(site.operands[0], reads)
        )
        return surgery.call_module(site, layer, choose)

    @staticmethod
    def _weights(site: Site, plan: Plan) -> tuple[Tensor, Vector]:
        """All weights [out, in / groups, *kernel] and biases [out], with removed constants folded or merged."""
        kernels, decision, output = site.kernels, plan.decisions[site.node], plan.constants[site.node]
        weight, bias = kernels.weight.clone(), kernels.bias
        if site.shared:
            agreed = agreed_inputs(site, plan)
            bias = bias + (_per_output(site, _by_group(site, agreed.folded)) * kernels.summed()).sum(axis=1)
            unread = ~_per_output(site, _by_group(site, agreed.read))
            weight[torch.from_numpy(unread).to(weight.device)] = 0.0
            return weight, bias
        given, source = plan.constants[site.operands[0]], plan.decisions[site.operands[0]]
        read = read_inputs(site, decision, output, given)
        removed = _used(site, decision, output) & _by_group(site, nonzero_constant(given) & ~read)
        if removed.any() and not kernels.sees_border:
            bias = bias + (_per_output(site, np.where(removed, _by_group(site, given), 0.0)) * kernels.summed()).sum(
                axis=1
            )
        elif removed.any():
            _merge(site, weight, removed, _by_group(site, given), _by_group(site, read))
        idle = ~_per_output(site, _by_group(site, source.exact))
        idle |= ~computed_rows(decision, output)[:, None]
        if np.count_nonzero(idle):
            weight[torch.from_numpy(idle).to(weight.device)] = 0.0
        bias = np.where(varies(output), bias, output) + plan.shift(site.node, site.channels)
        return weight, np.where(decision.valued, bias, 0.0)


@dataclass(frozen=True)
class Bucket:
    """Groups of the same widths.

    Attributes:
        rows: int64 [groups, R]: the outputs of each.
        inputs: int64 [groups, W]: the inputs of each, as channels of the operand.
    """

    rows: Layout
    inputs: Layout


def buckets_of(site: Site, plan: Plan) -> list[Bucket]:
    """The groups that are left, by their widths; inputs and groups as they stand in the operand."""
    if site.node not in plan.buckets:
        plan.buckets[site.node] = _settled(site, plan)
    return plan.buckets[site.node]


def _settled(site: Site, plan: Plan) -> list[Bucket]:
    given, decision = plan.constants[site.operands[0]], plan.decisions[site.node]
    have = plan.layouts[site.operands[0]]
    if site.shared:
        read = _filling(site, decision, _by_group(site, agreed_inputs(site, plan).read.copy()))
        return bucketed(site, decision, read, np.arange(len(given)))
    place = np.full(len(given), len(given), dtype=np.int64)
    place[have] = np.arange(len(have))
    return bucketed(site, decision, read_inputs(site, decision, plan.constants[site.node], given), place)


def bucketed(site: Site, decision: Decision, read: Flags, place: Layout) -> list[Bucket]:
    """The same from what is read and where each input stands."""
    rows, inputs, places = (_by_group(site, array) for array in (decision.keep, read, place))
    read_widths = inputs.sum(axis=1)
    widths = rows.sum(axis=1) * (inputs.shape[1] + 1) + read_widths  # one number for both sorts like the pair
    first = np.where(inputs, places, len(place)).min(axis=1)
    order = np.argsort(first, kind="stable")
    order = order[widths[order] > inputs.shape[1]]
    buckets = []
    for width in np.unique(widths[order])[::-1]:
        groups = order[widths[order] == width]
        outputs = np.nonzero(rows[groups])[1].reshape(len(groups), -1) + groups[:, None] * rows.shape[1]
        # within a group the inputs that are read come first, as they stand
        ranked = np.argsort(np.where(inputs[groups], places[groups], len(place)), axis=1, kind="stable")
        buckets.append(Bucket(outputs, ranked[:, : read_widths[groups[0]]] + groups[:, None] * inputs.shape[1]))
    return buckets


def read_inputs(site: Site, decision: Decision, output: Vector, given: Vector) -> Flags:
    """bool [in]: the inputs that the shrunk layer reads.

    In each group those that vary and matter, and behind a zero border one constant for all of them, the largest; the
    first channel where a group has outputs that only fill a place.
    """
    used, constant = _used(site, decision, output), _by_group(site, given)
    read = used & varies(constant)
    if site.kernels.sees_border:
        size = np.where(used & nonzero_constant(constant), np.abs(constant), 0.0)
        largest = size.argmax(axis=1)
        read[np.arange(len(read)), largest] |= size.any(axis=1)
    return _filling(site, decision, read)


def _filling(site: Site, decision: Decision, read: Flags) -> Flags:
    """bool [in]: what the groups [groups, in / groups] read; the first channel where one only fills a place."""
    read[_by_group(site, decision.keep).any(axis=1) & ~read.any(axis=1), 0] = True
    return np.asarray(read.reshape(-1), dtype=np.bool_)


def _used(site: Site, decision: Decision, output: Vector) -> Flags:
    """bool [groups, in / groups]: the inputs with any weight to an output that is made from them."""
    return site.kernels.read_in_groups(computed_rows(decision, output), _groups(site))


def _merge(site: Site, weight: Tensor, removed: Flags, given: npt.NDArray[np.float64], read: Flags) -> None:
    """Add the kernels of removed constants to that of the constant that is left in their group."""
    outputs = site.channels // _groups(site)
    for group in np.flatnonzero(removed.any(axis=1)):
        carrier = int(np.argmax(np.where(read[group] & ~varies(given[group]), np.abs(given[group]), -1.0)))
        gone = np.flatnonzero(removed[group])
        ratio = torch.from_numpy(given[group, gone] / given[group, carrier])
        rows = slice(group * outputs, (group + 1) * outputs)
        dropped = weight[rows][:, torch.from_numpy(gone).to(weight.device)].double().cpu()
        weight[rows, carrier] += torch.tensordot(dropped.movedim(1, -1), ratio, dims=1).to(weight)


def _has_groups(module: nn.Module | None) -> bool:
    return isinstance(module, CONVOLUTIONS) and module.groups > 1


def _groups(site: Site) -> int:
    return int(getattr(site.module, "groups"))  # noqa: B009 - the module's type was checked when the site was matched


def _by_group(site: Site, channels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[C, ...] as [groups, C / groups, ...]."""
    return channels.reshape(_groups(site), -1, *channels.shape[1:])


def _per_output(site: Site, by_group: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[groups, in / groups] as [out, in / groups]: what each output reads."""
    return np.repeat(by_group, site.channels // _groups(site), axis=0)
