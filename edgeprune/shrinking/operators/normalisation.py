"""Batch and instance normalisation in eval mode: a scale and a shift a channel.

A channel whose scale is zero turns into its beta whatever comes in; a constant stays a constant. So a filter that was
zeroed in front of a batch normalisation leaves a constant behind, and the analysis follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector, varies
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.copying import bare_twin
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import ChannelWise, same_sizes, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain, numbers_of, picked

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery

_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, *_INSTANCE)
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


class BatchNorm(ChannelWise):
    """nn.BatchNorm1d, 2d and 3d with running statistics, nn.InstanceNorm1d, 2d and 3d with or without.

    A batch normalisation without them depends on the batch and is left alone.
    """

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if type(module) not in _NORMS or not is_plain(module):
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None or form.axis != CHANNEL_AXIS:
            return None
        if type(module) in _INSTANCE:
            return (operand,) if form.rank == _INSTANCE.index(type(module)) + 3 else None
        return (operand,) if getattr(module, "running_mean", None) is not None else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        norm = _norm(site)
        gamma, beta, mean, variance = _numbers(norm)
        if norm.running_mean is None:
            return np.where(varies(operands[0]) & (gamma != 0.0), np.nan, beta)
        scale = gamma / np.sqrt(variance + norm.eps)
        shifted = (operands[0] - mean) * scale + beta
        return np.where(gamma == 0.0, beta, shifted)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        if site.shared:
            return [Demand.of(decision.exact, present=True)]
        norm = _norm(site)
        gamma = numbers_of(norm.weight, norm.num_features, 1.0)
        return [Demand.of(decision.exact & (gamma != 0.0), physical=decision.keep, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep) if site.shared else operands[0]

    def image_rule(self, site: Site) -> ImageRule | None:
        return same_sizes(site)

    def absorbs(self, site: Site) -> bool:
        return not site.shared and _norm(site).affine

    def takes_bias(self, site: Site) -> bool:
        """The running mean takes it off; an instance normalisation with none has no use for a bias either."""
        return not site.shared and _norm(site).running_mean is not None

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        norm = _norm(site)
        layout = surgery.plan.layouts[site.node]
        shift = surgery.plan.shift(site.node, site.channels)[layout]
        shrunk = bare_twin(norm)
        shrunk.num_features = len(layout)
        tables: tuple[dict[str, Any], ...] = (shrunk._parameters, shrunk._buffers)
        for table in tables:
            for name, tensor in table.items():
                table[name] = None if tensor is None else pick_channels(tensor, layout)
        passed = surgery.passed_on.get(site.node)
        if passed is not None and shrunk.running_mean is not None:
            shrunk.running_mean.sub_(torch.from_numpy(passed[layout]).to(shrunk.running_mean))
        if shift.any():
            shrunk.bias.data.add_(torch.from_numpy(shift).to(shrunk.bias))
        given = filled(site, site.operands[0], layout, surgery) if site.shared else surgery.value(site.operands[0])
        return surgery.call_module(site, shrunk, given)


def _norm(site: Site) -> Norm:
    if not isinstance(site.module, _NORMS):
        raise TypeError(f"{site.name} is no batch or instance normalisation")
    return site.module


def pick_channels(tensor: Tensor, layout: Layout) -> Tensor:
    """Some channels of a parameter or buffer; a number that counts batches is copied."""
    chosen = picked(tensor, layout) if tensor.dim() else tensor.detach().clone()
    return nn.Parameter(chosen, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else chosen


def _numbers(norm: Norm) -> tuple[Vector, Vector, Vector, Vector]:
    """float64 gamma, beta, running mean and running variance; gamma 1 and beta 0 where the layer is not affine."""
    tensors = (norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 0.0), (norm.running_var, 1.0)
    gamma, beta, mean, variance = (numbers_of(tensor, norm.num_features, default) for tensor, default in tensors)
    return gamma, beta, mean, variance
