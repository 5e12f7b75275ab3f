"""Group normalisation: a group stays whole or goes, since all its channels share one mean and one variance.

Constants of a group that stays are appended as numbers, so that no layer computes rows for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, varies
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.copying import bare_twin
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import Operator, same_sizes, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain, numbers_of
from edgeprune.shrinking.operators.normalisation import pick_channels

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class GroupNorm(Operator):
    """nn.GroupNorm."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if type(module) is not nn.GroupNorm or not is_plain(module):
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        return (operand,) if operand is not None and form is not None and form.axis == CHANNEL_AXIS else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        norm = _norm(site)
        gamma, beta = _numbers(norm)
        groups = operands[0].reshape(norm.num_groups, -1)
        # a group of constants alone: NaN where any channel varies
        spread = np.sqrt(groups.var(axis=1, keepdims=True) + norm.eps)
        steady = ((groups - groups.mean(axis=1, keepdims=True)) / spread).reshape(-1) * gamma + beta
        return np.where(gamma == 0.0, beta, steady)

    def widen(self, site: Site, keep: Flags) -> Flags:
        return _whole_groups(site, keep)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        computed = decision.exact if site.shared else decision.exact & varies(output)
        value = _whole_groups(site, computed)
        return [Demand.of(value, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def image_rule(self, site: Site) -> ImageRule | None:
        return same_sizes(site)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        norm, plan, layout = _norm(site), surgery.plan, surgery.plan.layouts[site.node]
        shrunk = bare_twin(norm)
        shrunk.num_channels = len(layout)
        shrunk.num_groups = len(layout) * norm.num_groups // norm.num_channels
        for name, tensor in norm._parameters.items():
            shrunk._parameters[name] = None if tensor is None else pick_channels(tensor, layout)  # type: ignore[assignment]
        if not site.shared and norm.affine:
            # in a group that is there for its place alone, constants are shifts
            output, decision = plan.constants[site.node], plan.decisions[site.node]
            computed = _whole_groups(site, decision.exact & varies(output))[layout]
            self._settle(shrunk, ~computed, np.where(varies(output), 0.0, output)[layout])
        return surgery.call_module(site, shrunk, filled(site, site.operands[0], layout, surgery))

    @staticmethod
    def _settle(norm: nn.GroupNorm, idle: Flags, constants: Vector) -> None:
        places = torch.from_numpy(idle).to(norm.weight.device)
        norm.weight.data[places] = 0.0
        norm.bias.data[places] = torch.from_numpy(constants[idle]).to(norm.bias)


def _norm(site: Site) -> nn.GroupNorm:
    if not isinstance(site.module, nn.GroupNorm):
        raise TypeError(f"{site.name} is no group normalisation")
    return site.module


def _numbers(norm: nn.GroupNorm) -> tuple[Vector, Vector]:
    return numbers_of(norm.weight, norm.num_channels, 1.0), numbers_of(norm.bias, norm.num_channels, 0.0)


def _whole_groups(site: Site, flags: Flags) -> Flags:
    groups = _norm(site).num_groups
    return np.asarray(np.repeat(flags.reshape(groups, -1).any(axis=1), len(flags) // groups), dtype=np.bool_)
