"""From operators of torch.export back to the calls that people write, which the shrinker's operators know.

Start with `raised`. An operator that is not named here stays what it is; the shrinker then leaves its inputs whole.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

Call = tuple[str, Callable[..., Any] | str, tuple[Any, ...], dict[str, Any]]
"""What `fx.Graph.create_node` takes: op, target, args, kwargs."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "adaptive_avg_pool1d.default": F.adaptive_avg_pool1d,
    "adaptive_avg_pool2d.default": F.adaptive_avg_pool2d,
    "adaptive_avg_pool3d.default": F.adaptive_avg_pool3d,
    "add.Tensor": operator.add,
    "addmm.default": torch.addmm,
    "avg_pool1d.default": F.avg_pool1d,
    "avg_pool2d.default": F.avg_pool2d,
    "avg_pool3d.default": F.avg_pool3d,
    "bmm.default": torch.bmm,
    "cat.default": torch.cat,
    "celu.default": F.celu,
    "channel_shuffle.default": F.channel_shuffle,
    "chunk.default": torch.chunk,
    "clamp.default": torch.clamp,
    "div.Tensor": operator.truediv,
    "elu.default": F.elu,
    "exp.default": torch.exp,
    "flatten.using_ints": torch.flatten,
    "gelu.default": F.gelu,
    "hardshrink.default": F.hardshrink,
    "hardsigmoid.default": F.hardsigmoid,
    "hardswish.default": F.hardswish,
    "hardtanh.default": F.hardtanh,
    "leaky_relu.default": F.leaky_relu,
    "linear.default": F.linear,
    "log_sigmoid.default": F.logsigmoid,
    "matmul.default": torch.matmul,
    "max_pool1d.default": F.max_pool1d,
    "max_pool2d.default": F.max_pool2d,
    "max_pool3d.default": F.max_pool3d,
    "mean.dim": torch.mean,
    "mish.default": F.mish,
    "mul.Tensor": operator.mul,
    "neg.default": torch.neg,
    "pad.default": F.pad,
    "pixel_shuffle.default": F.pixel_shuffle,
    "pixel_unshuffle.default": F.pixel_unshuffle,
    "relu.default": F.relu,
    "relu6.default": F.relu6,
    "selu.default": F.selu,
    "sigmoid.default": torch.sigmoid,
    "silu.default": F.silu,
    "softmax.int": F.softmax,
    "softplus.default": F.softplus,
    "softshrink.default": F.softshrink,
    "split.Tensor": torch.split,
    "split_with_sizes.default": torch.split,
    "square.default": torch.square,
    "stack.default": torch.stack,
    "sub.Tensor": operator.sub,
    "tanh.default": torch.tanh,
    "threshold.default": F.threshold,
    "transpose.int": torch.transpose,
    "unsqueeze.default": torch.unsqueeze,
}  # fmt: skip
"""Operators whose arguments stand in the order of the function's."""

_ARITHMETIC: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.add: torch.add, operator.sub: torch.sub, operator.mul: torch.mul, operator.truediv: torch.div
}  # fmt: skip
"""The functions that take what an operator sign does not: alpha, rounding_mode."""

_METHODS = {
    "abs.default": "abs",
    "alias.default": "clone",
    "clone.default": "clone",
    "contiguous.default": "contiguous",
    "detach.default": "detach",
    "expand.default": "expand",
    "lift_fresh_copy.default": "clone",
    "permute.default": "permute",
    "repeat.default": "repeat",
    "reshape.default": "reshape",
    "sym_size.int": "size",
    "view.default": "view",
    "_unsafe_view.default": "reshape",
}
_SPREAD = frozenset({"expand", "permute", "repeat", "reshape", "view"})
"""Methods that take their sizes one by one."""

_RESIZES = {
    "upsample_nearest1d.vec": "nearest",
    "upsample_nearest2d.vec": "nearest",
    "upsample_nearest3d.vec": "nearest",
    "upsample_linear1d.vec": "linear",
    "upsample_bilinear2d.vec": "bilinear",
    "upsample_bicubic2d.vec": "bicubic",
    "upsample_trilinear3d.vec": "trilinear",
}


def operator_name(node: fx.Node) -> str:
    """Name and overload of an aten operator, such as "conv2d.default"; empty for anything else."""
    name = str(node.target)
    return name.removeprefix("aten.") if isinstance(node.target, torch._ops.OpOverload) else ""


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an aten operator by name, with its defaults."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    named = {one.name: one.default_value for one in schema.arguments}
    named |= dict(zip([one.name for one in schema.arguments], node.args, strict=False))
    return named | dict(node.kwargs)


def raised(node: fx.Node) -> Call:
    """The call that people write for a node of an exported graph, with the arguments as they stand there."""
    name = operator_name(node)
    args, kwargs = tuple(node.args), dict(node.kwargs)
    if name in _FUNCTIONS:
        function: Callable[..., Any] = _FUNCTIONS[name]
        if kwargs and function in _ARITHMETIC:
            function = _ARITHMETIC[function]
        return "call_function", function, _without_empty(args), kwargs
    if name in ("view.default", "reshape.default") and _keeps_the_batch_alone(node):
        return "call_function", torch.flatten, (args[0], 1), {}
    if name == "clone.default" and kwargs.get("memory_format") is torch.contiguous_format:
        return "call_method", "contiguous", args, {}
    if name in _METHODS:
        method = _METHODS[name]
        if method in _SPREAD and len(args) == 2 and isinstance(args[1], list | tuple) and not kwargs:
            args = (args[0], *args[1])
        return "call_method", method, args, kwargs
    if name in _RESIZES:
        return _resize(node, _RESIZES[name])
    if name == "constant_pad_nd.default":
        value = args[2] if len(args) > 2 else 0.0
        return "call_function", F.pad, (args[0], args[1], "constant", value), {}
    if name in ("slice.Tensor", "select.int"):
        return _index(node, name)
    return node.op, node.target, args, kwargs


def _keeps_the_batch_alone(node: fx.Node) -> bool:
    (source, *_) = node.all_input_nodes
    before, after = source.meta["val"].shape, node.meta["val"].shape
    # compared as text: a comparison of open sizes would settle them
    return len(after) == 2 < len(before) and str(after[0]) == str(before[0])


def _without_empty(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's empty stride is the function's None."""
    return tuple(None if isinstance(one, list | tuple) and not len(one) else one for one in args)


def _resize(node: fx.Node, mode: str) -> Call:
    given = arguments(node)
    size, scales = given["output_size"], given["scale_factors"]
    kwargs = {"size": size, "scale_factor": scales, "mode": mode}
    if mode != "nearest":
        kwargs["align_corners"] = given["align_corners"]
    return "call_function", F.interpolate, (given["input"],), kwargs


def _index(node: fx.Node, name: str) -> Call:
    given = arguments(node)
    if name == "select.int":
        place: Any = given["index"]
    else:
        end = None if given["end"] == sys.maxsize else given["end"]
        place = slice(given["start"] or None, end, None if given["step"] == 1 else given["step"])
    axis, source = given["dim"], given["self"]
    if axis < 0:
        axis += source.meta["val"].dim()
    return "call_function", operator.getitem, (source, (*[slice(None)] * axis, place)), {}
