"""Numbers that an earlier shrinking put in the place of a layer: see `edgeprune.shrinking.constant_channels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.constant_channels import ConstantChannels, ImageRule
from edgeprune.shrinking.forms import Form, Forms
from edgeprune.shrinking.operators.base import Operator, sole_tensor
from edgeprune.shrinking.operators.kernels import in_double

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Constant(Operator):
    """A module of ours that takes of its operand the sizes alone."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        operand = sole_tensor(node, forms) if type(module) is ConstantChannels else None
        return None if operand is None else (operand,)

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return operands[0].axis

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return in_double(_made(site).numbers).reshape(-1)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return [Demand.of(np.zeros(len(operands[0]), dtype=np.bool_), present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def image_rule(self, site: Site) -> ImageRule | None:
        return _made(site).rule

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        raise TypeError(f"{site.name} holds numbers alone, which are settled before")


def _made(site: Site) -> ConstantChannels:
    if not isinstance(site.module, ConstantChannels):
        raise TypeError(f"{site.name} is no module of constants")
    return site.module
