"""Grouped and depthwise convolutions: whole groups stay or go.

Start with `Grouped.widen`. A depthwise convolution is the case of one channel a group, for which this is exact and
minimal; in wider groups a group lives as long as one of its outputs is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, nonzero_constant, varies
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.base import Operator, sole_tensor
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS, is_plain
from edgeprune.shrinking.operators.mixing import computed_rows

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Grouped(Operator):
    """A convolution in which each group of outputs reads its own group of inputs."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None or not is_plain(module) or type(module) not in CONVOLUTIONS:
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

    def widen(self, site: Site, keep: Flags) -> Flags:
        alive = _by_group(site, keep).any(axis=1)
        return np.asarray(np.repeat(alive, len(keep) // _groups(site)), dtype=np.bool_)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        used = np.where(computed_rows(site, decision, output)[:, None], site.kernels.connected, False)
        value = _by_group(site, used).any(axis=1).reshape(-1)
        alive = _by_group(site, decision.keep).any(axis=1)
        return [Demand.of(value, physical=np.repeat(alive, len(operands[0]) // _groups(site)), present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def reads(self, site: Site, plan: Plan) -> Layout:
        """The channels of the groups that are left."""
        alive = _by_group(site, plan.decisions[site.node].keep).any(axis=1)
        return np.flatnonzero(np.repeat(alive, len(plan.constants[site.operands[0]]) // _groups(site)))

    def absorbs(self, site: Site) -> bool:
        return not site.shared

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        plan, kernels, operand = surgery.plan, site.kernels, site.operands[0]
        decision, output = plan.decisions[site.node], plan.constants[site.node]
        rows = plan.layouts[site.node]
        alive, reads = _by_group(site, decision.keep).any(axis=1), self.reads(site, plan)
        weight, bias = kernels.cut(rows), kernels.bias
        if not site.shared:
            weight[torch.from_numpy(~computed_rows(site, decision, output)[rows])] = 0.0
            bias = np.where(varies(output), bias, output) + plan.shift(site.node, site.channels)
            bias[~decision.valued] = 0.0
        layer = kernels.rebuilt(weight, bias[rows], groups=int(alive.sum()))
        return surgery.call_module(site, layer, surgery.select(operand, reads))


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
