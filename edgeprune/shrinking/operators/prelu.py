"""The rectifier with a trained slope, one for all channels or one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.copying import bare_twin
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import ChannelWise, same_sizes, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain, numbers_of
from edgeprune.shrinking.operators.normalisation import pick_channels

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class PReLU(ChannelWise):
    """nn.PReLU."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if not isinstance(module, nn.PReLU) or not is_plain(module):
            return None
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None:
            return None
        return (operand,) if form.axis == CHANNEL_AXIS or module.num_parameters == 1 else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        module = _rectifier(site)
        slope = numbers_of(module.weight, module.num_parameters, 0.0)
        return np.where(operands[0] < 0.0, operands[0] * slope, operands[0])

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        physical = None if site.shared else decision.keep
        return [Demand.of(decision.exact, physical=physical, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep) if site.shared else operands[0]

    def image_rule(self, site: Site) -> ImageRule | None:
        return same_sizes(site)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        module, layout = _rectifier(site), surgery.plan.layouts[site.node]
        if module.num_parameters == 1:
            return surgery.copy(site)
        shrunk = bare_twin(module)
        shrunk.num_parameters = len(layout)
        shrunk.weight = pick_channels(module.weight, layout)  # type: ignore[assignment]
        return surgery.call_module(site, shrunk, filled(site, site.operands[0], layout, surgery))


def _rectifier(site: Site) -> nn.PReLU:
    if not isinstance(site.module, nn.PReLU):
        raise TypeError(f"{site.name} is no PReLU")
    return site.module
