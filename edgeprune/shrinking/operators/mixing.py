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
from edgeprune.shrinking.operators.base import Operator, Shapes, sole_tensor
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS, LAYERS, TRANSPOSED, is_plain

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.operators.kernels import Kernels
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery

MOST_READ_BY_GATHER = 0.75
"""A layer that reads at most this part of its operand's channels gathers them first; the gather costs a copy.

Measured on one x86-64 core (AVX-512) for five convolutions, 1x1 and 3x3, of 16 to 64 channels on 8 to 32 pixels: at 3/4
the gather and the convolution took 0.79 to 1.17 of the whole convolution's time in ONNX Runtime (below 1 in four of the
five) and 0.79 to 0.98 in TVM; at 7/8 1.02 to 1.28 and 0.89 to 1.04.
"""


class Mixing(Operator):
    """A dense layer with weights from every input channel to every output channel."""

    def match(self, node: fx.Node, module: nn.Module | None, shapes: Shapes) -> tuple[fx.Node, ...] | None:
        operand = sole_tensor(node, shapes)
        if operand is None or not is_plain(module):
            return None
        rank = len(shapes[operand] or ())
        if type(module) is nn.Linear:
            return (operand,) if rank == 2 else None
        if isinstance(module, CONVOLUTIONS + TRANSPOSED) and type(module) in LAYERS:
            return (operand,) if module.groups == 1 and rank == module.weight.dim() else None
        return None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        kernels, given = site.kernels, operands[0]
        moving = varies(given)
        if kernels.sees_border:
            moving = moving | nonzero_constant(given)
        result = kernels.bias
        steady = np.where(moving, 0.0, given)
        if steady.any():
            result = result + kernels.summed @ steady
        result[kernels.connected[:, moving].any(axis=1)] = np.nan
        return result

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        kernels, given = site.kernels, operands[0]
        used = read_inputs(kernels, computed_rows(site, decision, output))
        if site.shared:  # one set of weights serves several calls: nothing can be folded for one of them
            return [Demand.of(used, physical=used, present=True)]
        border = used & nonzero_constant(given) if kernels.sees_border else None
        return [Demand.of(used, border=border, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def reads(self, site: Site, plan: Plan) -> Layout:
        """All channels that its operand holds, or those it needs, where a gather in front of it is worth its copy."""
        operand = site.operands[0]
        have, source = plan.layouts[operand], plan.decisions[operand]
        used = read_inputs(site.kernels, computed_rows(site, plan.decisions[site.node], plan.constants[site.node]))
        if source.carrier is not None and site.kernels.sees_border and not site.shared:
            used[source.carrier] = True
        needed = have[used[have]]
        if not len(needed):
            return have[:1]
        return needed if site.shared or len(needed) <= MOST_READ_BY_GATHER * len(have) else have

    def absorbs(self, site: Site) -> bool:
        return not site.shared

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        plan, operand = surgery.plan, site.operands[0]
        rows, reads = plan.layouts[site.node], self.reads(site, plan)
        if site.shared:
            weight, bias = shared_weights(site.kernels, reads, rows)
        else:
            weight, bias = shrunk_weights(site, surgery, reads)
        wants_bias = site.kernels.layer.bias is not None or bool(bias.any())
        layer = site.kernels.resized(len(reads), len(rows), bias=wants_bias)
        fill(layer, site.kernels, weight, bias)
        return surgery.call_module(site, layer, surgery.select(operand, reads))


def computed_rows(site: Site, decision: Decision, output: Vector) -> Flags:
    """bool [out]: outputs that are made from the inputs; the others are constants or only fill a place."""
    return decision.keep if site.shared else decision.exact & varies(output)


def read_inputs(kernels: Kernels, rows: Flags) -> Flags:
    """bool [in]: inputs with any weight to the given outputs."""
    return np.asarray(kernels.connected[rows].any(axis=0), dtype=np.bool_)


def shared_weights(kernels: Kernels, reads: Layout, rows: Layout) -> tuple[Tensor, Vector]:
    """Weights [rows, reads, *kernel] and bias [rows] of a layer that is called in several places: cut, never folded."""
    return kernels.weight[torch.from_numpy(rows)][:, torch.from_numpy(reads)], kernels.bias[rows]


def shrunk_weights(site: Site, surgery: Surgery, reads: Layout) -> tuple[Tensor, Vector]:
    """Weights [rows, reads, *kernel] and bias [rows] that give the kept outputs from the kept inputs.

    Raises:
        ShrinkError: Constants were removed in front of a zero border without a carrier for them.
    """
    plan, kernels, operand = surgery.plan, site.kernels, site.operands[0]
    rows = plan.layouts[site.node]
    decision, source = plan.decisions[site.node], plan.decisions[operand]
    given, output = plan.constants[operand], plan.constants[site.node]
    computed = computed_rows(site, decision, output)
    weight = kernels.weight[torch.from_numpy(rows)][:, torch.from_numpy(reads)]
    weight[:, torch.from_numpy(~source.exact[reads])] = 0.0
    bias = kernels.bias

    present = np.zeros_like(computed, shape=given.shape)
    present[reads] = source.exact[reads]
    removed = np.flatnonzero(nonzero_constant(given) & ~present & read_inputs(kernels, computed))
    if len(removed) and kernels.sees_border:
        if source.carrier is None or not present[source.carrier]:
            raise ShrinkError(
                f"{site.name}: constants behind a zero border have no kept channel to stand for them",
                hint="this is a fault of edgeprune's analysis: report it with the model",
            )
        ratio = torch.from_numpy(given[removed] / given[source.carrier])
        dropped = kernels.weight[torch.from_numpy(rows)][:, torch.from_numpy(removed)].double().cpu()
        merged = torch.tensordot(dropped.movedim(1, -1), ratio, dims=1).to(weight)
        weight[:, int(np.flatnonzero(reads == source.carrier)[0])] += merged
    elif len(removed):
        bias = bias + kernels.summed[:, removed] @ given[removed]
    weight[torch.from_numpy(~computed[rows])] = 0.0
    bias = np.where(varies(output), bias, output) + plan.shift(site.node, site.channels)
    return weight, np.where(decision.valued, bias, 0.0)[rows]


def fill(layer: nn.Module, original: Kernels, weight: Tensor, bias: Vector) -> None:
    """Set weight [out, in / groups, *kernel] and bias [out] of a resized layer; frozen weights stay frozen."""
    if not isinstance(layer, LAYERS):
        raise TypeError(f"{type(layer).__name__} has no kernels")
    with torch.no_grad():
        layer.weight.copy_(weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight)
        layer.weight.requires_grad_(original.layer.weight.requires_grad)
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
            like = original.layer.weight if original.layer.bias is None else original.layer.bias
            layer.bias.requires_grad_(like.requires_grad)
