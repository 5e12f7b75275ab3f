"""Activations and other operators that map each number alone.

A constant goes in as a number and comes out as the number that the operator itself makes of it, so a new activation is
one name in a table.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Vector, varies
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, Forms
from edgeprune.shrinking.operators.base import ChannelWise, argument, has_channels, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Multiples, Patterns
    from edgeprune.shrinking.rewrite import Surgery

MODULES: frozenset[type[nn.Module]] = frozenset({
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Softsign, nn.LogSigmoid, nn.Threshold, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout,
})  # fmt: skip

FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid,
    F.hardtanh, F.hardshrink, F.softshrink, F.tanhshrink, F.sigmoid, F.tanh, F.softplus, F.softsign, F.logsigmoid,
    F.threshold, torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.clip, torch.clamp_min, torch.clamp_max,
    torch.abs, torch.neg, torch.exp, torch.square, torch.sqrt, torch.rsqrt, torch.pow, torch.log, torch.sin, torch.cos,
    torch.sign, operator.neg, operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, torch.add,
    torch.sub, torch.mul, torch.div,
})  # fmt: skip

METHODS: frozenset[str] = frozenset({
    "relu", "sigmoid", "tanh", "clamp", "clip", "clamp_min", "clamp_max", "abs", "neg", "exp", "square", "sqrt",
    "rsqrt", "pow", "log", "sin", "cos", "sign", "contiguous", "clone", "detach", "add", "sub", "mul", "div",
})  # fmt: skip

_RECTIFIERS: frozenset[Any] = frozenset({nn.ReLU, F.relu, torch.relu, "relu"})
_DROPOUTS = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d})


class Pointwise(ChannelWise):
    """One tensor in, the same function of every number; other arguments are plain numbers."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.op == "call_module":
            known = type(module) in MODULES and is_plain(module)
        elif node.op == "call_function":
            known = node.target in FUNCTIONS or _is_dropout(node)
        else:
            known = node.op == "call_method" and node.target in METHODS
        if not known:
            return None
        operands = [n for n in node.all_input_nodes if forms[n] is not None]
        # a bare number from the graph (a size, say) is unknown to the analysis, so the node is left to others
        if len(node.all_input_nodes) != 1 or len(operands) != 1 or not has_channels(operands[0], forms):
            return None
        return (operands[0],)

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        given = operands[0]
        if (site.node.target if site.module is None else type(site.module)) in _RECTIFIERS:
            return np.maximum(given, 0.0)  # the commonest by far, which torch takes ten times as long for; NaN stays
        known = np.where(varies(given), 0.0, given)
        # one image of one pixel: some operators take only the rank that they have in the network
        numbers = site.operand_forms[0].lay_out(torch.from_numpy(known))
        node = site.node
        with torch.no_grad():
            if site.module is not None:
                result = site.module(numbers)
            else:
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda _: numbers)
                target: Any = getattr(torch.Tensor, str(node.target)) if node.op == "call_method" else node.target
                result = target(*args, **kwargs)
        numbers_out = result.double().flatten().numpy()
        return np.where(varies(given) | ~np.isfinite(numbers_out), np.nan, numbers_out)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        # told not to train, it never does again: it would only tie the network to torchvision's code
        return surgery.value(site.operands[0]) if _is_dropout(site.node) else super().rebuild(site, surgery)


def _is_dropout(node: fx.Node) -> bool:
    """A dropout that is told not to train; torchvision's of whole branches is a function of its own."""
    if getattr(node.target, "__name__", "") == "stochastic_depth":
        return argument(node, 3, "training", True) is False
    return node.target in _DROPOUTS and argument(node, 2, "training", True) is False


class Spatial(ChannelWise):
    """Pooling, resizing, and the mean, sum and extremes over space: each channel alone, a constant stays what it is.

    An average over a padded border mixes zeros in, so there a nonzero constant varies.
    """

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        if operand is None or form is None or form.rank < 3:
            return None
        if node.target in _REDUCTIONS:
            return (operand,) if _averages_space(node, form) else None
        called = type(module) if node.op == "call_module" else node.target
        pools = node.op != "call_method" and form.axis == CHANNEL_AXIS and _is_pool(called, form.rank)
        if node.op == "call_module":
            pools = pools and is_plain(module) and not getattr(module, "return_indices", False)
        return (operand,) if pools else None

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        given = operands[0]
        if node.target not in _REDUCTIONS or argument(node, 2, "keepdim", False):
            return given.axis
        return given.axis - sum(axis < given.axis for axis in _averaged_axes(node, given.rank))

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        given = operands[0]
        return given if _keeps_constants(site) else np.where(given == 0.0, 0.0, np.nan)

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        called = type(site.module) if site.module is not None else site.node.target
        return None if called in _MAXIMA else patterns.after(site.node, operands[0])


_MAXIMA: frozenset[Any] = frozenset({
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    F.max_pool1d, torch.max_pool1d, F.max_pool2d, torch.max_pool2d, F.max_pool3d, torch.max_pool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, "amax", torch.amax, "amin", torch.amin,
})  # fmt: skip
_SUMS: frozenset[Any] = frozenset({"sum", torch.sum})
_REDUCTIONS: frozenset[Any] = _SUMS | {"mean", torch.mean, "amax", torch.amax, "amin", torch.amin}
_AVERAGES: frozenset[Callable[..., Any]] = frozenset({F.avg_pool1d, F.avg_pool2d, F.avg_pool3d})
_POOLS: dict[int, frozenset[Callable[..., Any]]] = {
    3: frozenset({
        nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, F.max_pool1d, torch.max_pool1d,
        F.avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_max_pool1d,
    }),
    4: frozenset({
        nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, F.max_pool2d, torch.max_pool2d,
        F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
    }),
    5: frozenset({
        nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d, F.max_pool3d, torch.max_pool3d,
        F.avg_pool3d, F.adaptive_avg_pool3d, F.adaptive_max_pool3d,
    }),
}  # fmt: skip
"""Pools by the rank of the batches that they take: of one rank less, axis 1 is not the channels but space."""


def _is_pool(called: object, rank: int) -> bool:
    return called in _POOLS.get(rank, ()) or called in (nn.Upsample, F.interpolate)


def _averages_space(node: fx.Node, form: Form) -> bool:
    axes = _averaged_axes(node, form.rank)
    return len(axes) > 0 and not {0, form.axis} & set(axes)


def _averaged_axes(node: fx.Node, rank: int) -> tuple[int, ...]:
    axes = argument(node, 1, "dim", None)
    axes = (axes,) if isinstance(axes, int) else axes
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        return ()
    return tuple(axis % rank for axis in axes)


def _keeps_constants(site: Site) -> bool:
    node, module = site.node, site.module
    if node.target in _SUMS:
        return False
    if module is not None:
        padding, counted = getattr(module, "padding", 0), getattr(module, "count_include_pad", False)
        divisor = getattr(module, "divisor_override", None)
    elif node.target in _AVERAGES:
        padding, counted = argument(node, 3, "padding", 0), argument(node, 5, "count_include_pad", True)
        divisor = argument(node, 6, "divisor_override", None)
    else:
        return True
    padded = any(padding) if isinstance(padding, list | tuple) else padding != 0
    return divisor is None and not (padded and counted)
