"""Layer normalisation: its mean and variance are over the channels, so it needs all of them with their values.

Those that are constants are appended as numbers, so that no layer computes rows for them. Its output may still lose
channels: where the scale is zero a channel is the constant shift, and readers take what they need of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector, varies
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.forms import Forms
from edgeprune.shrinking.operators.aligned import filled
from edgeprune.shrinking.operators.base import Operator, argument, has_channels, same_sizes
from edgeprune.shrinking.operators.kernels import is_plain, numbers_of

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class LayerNorm(Operator):
    """nn.LayerNorm and F.layer_norm over the last axis, where that holds the channels."""

    needs_all = "layer normalisation needs all channels"

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        called = type(module) is nn.LayerNorm and is_plain(module)
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not (called or node.target is F.layer_norm) or not has_channels(first, forms):
            return None
        form = forms[first] if isinstance(first, fx.Node) else None
        if not isinstance(first, fx.Node) or form is None or form.axis != form.rank - 1:
            return None
        over: Any = (
            module.normalized_shape if isinstance(module, nn.LayerNorm) else argument(node, 1, "normalized_shape", None)
        )
        numbers = [argument(node, 2, "weight", None), argument(node, 3, "bias", None)]
        plain = all(x is None or (isinstance(x, fx.Node) and x.op == "get_attr") for x in numbers)
        if not isinstance(over, list | tuple) or tuple(over) != (form.channels,) or not plain:
            return None
        return (first, *(x for x in numbers if isinstance(x, fx.Node)))

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        gamma, beta = self._numbers(site, operands)
        return np.where(gamma == 0.0, beta, np.nan)

    @staticmethod
    def _numbers(site: Site, operands: Sequence[Vector]) -> tuple[Vector, Vector]:
        """float64 gamma and beta: read from the module, or what is known of the tensors that the function is given."""
        if isinstance(site.module, nn.LayerNorm):
            return numbers_of(site.module.weight, site.channels, 1.0), numbers_of(site.module.bias, site.channels, 0.0)
        given = dict(zip(site.operands, operands, strict=True))
        weight, bias = argument(site.node, 2, "weight", None), argument(site.node, 3, "bias", None)
        return given.get(weight, np.ones(site.channels)), given.get(bias, np.zeros(site.channels))

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        computed = np.full(site.channels, (decision.exact & varies(output)).any())
        return [Demand.of(computed, present=True), *(Demand.everything(len(operand)) for operand in operands[1:])]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.arange(site.channels)

    def image_rule(self, site: Site) -> ImageRule | None:
        return same_sizes(site)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        every = np.arange(site.channels)
        numbers = [surgery.select(operand, every) for operand in site.operands[1:]]
        return surgery.call_again(site, [filled(site, site.operands[0], every, surgery), *numbers])
