"""Nodes that compute: as layers of the core, once it is known how their result is quantised. `OPERATORS` has them.

Each gives what is pending (`found.Pending`), or None where the core cannot do what the node says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.found import Found, Pending
from edgeprune.compiling.fpga.layers import pooling
from edgeprune.compiling.fpga.operations import (
    NOTHING,
    Bounds,
    Operation,
    Value,
    View,
    Weights,
    Window,
    addition,
    choice,
    weighted,
)
from edgeprune.compiling.fpga.qdq import Constant, attributes
from edgeprune.errors import CompileError

if TYPE_CHECKING:
    import onnx

_LARGEST = 255  # of a kernel's rows and columns, strides and dilations: a command has 8 bits for each


def _convolution(found: Found, node: onnx.NodeProto) -> Pending | None:
    view, constant = found.views.get(node.input[0]), found.graph.constant(node.input[1])
    window, groups = _window(node), int(attributes(node).get("group", 1))
    if view is None or view.flat or window is None or constant is None or constant.values.ndim != 4:
        return None
    if constant.axis != 0 or constant.values.dtype != np.int8 or max(constant.values.shape[2:]) > _LARGEST:
        return None
    bias = _bias(found, node, constant, view)
    if bias is None:
        return None
    macs, weights = found.graph.macs(node), Weights(constant.values, _scales(constant), bias, groups)

    def finish(found: Found, target: Value, bounds: Bounds) -> list[Operation]:
        source, own = _unpicked(found, view, weights)
        layer = weighted(own, window, source.quanta, target.quanta, bounds)
        return [Operation((), "Conv", layer, source, target, macs=macs)]

    return Pending((node.name,), finish)


def _unpicked(found: Found, view: View, weights: Weights) -> tuple[Value, Weights]:
    """Weights for the tensor that a view is of; where they cannot take the view in, it is copied."""
    chosen = view.places
    real = chosen[chosen != NOTHING]
    if view.picked is None and view.step == (1, 1):
        return view.value, weights
    if view.step != (1, 1) or weights.groups != 1 or len(np.unique(real)) != len(real):
        return found.tensor(view), weights
    spread = np.zeros((len(weights.values), view.value.channels, *weights.values.shape[2:]), np.int8)
    spread[:, real] = weights.values[:, chosen != NOTHING]
    return view.value, replace(weights, values=spread, skips_zeros=True)


def _linear(found: Found, node: onnx.NodeProto) -> Pending | None:
    """A matrix of constants times a vector; of a picture laid flat it is a convolution as large as the picture."""
    view, constant, fields = found.views.get(node.input[0]), found.graph.constant(node.input[1]), attributes(node)
    is_gemm = node.op_type == "Gemm"
    if view is None or constant is None or constant.values.ndim != 2 or len(found.graph.shape(node.output[0])) != 2:
        return None
    if is_gemm and (fields.get("transA") or fields.get("alpha", 1.0) != 1.0 or fields.get("beta", 1.0) != 1.0):
        return None
    turned = bool(fields.get("transB")) if is_gemm else False
    if constant.values.dtype != np.int8 or (constant.scale.size > 1 and constant.axis != (0 if turned else 1)):
        return None
    matrix = constant.values if turned else np.ascontiguousarray(constant.values.T)
    bias = _bias(found, node, replace(constant, values=matrix), view)
    if bias is None:
        return None
    value = view.value
    rows, columns = (value.rows, value.columns) if view.flat else (1, 1)
    if view.picture != (1, 1) or max(rows, columns) > _LARGEST:
        return None
    chosen = view.places
    real = chosen[chosen != NOTHING]
    if len(np.unique(real)) != len(real):
        return None
    spread = np.zeros((len(matrix), value.channels * rows * columns), np.int8)
    spread[:, real] = matrix[:, chosen != NOTHING]
    values = spread.reshape(len(matrix), value.channels, rows, columns)
    weights, macs = Weights(values, _scales(replace(constant, values=matrix)), bias), found.graph.macs(node)

    def finish(found: Found, target: Value, bounds: Bounds) -> list[Operation]:
        layer = weighted(weights, Window(), value.quanta, target.quanta, bounds)
        return [Operation((), node.op_type, layer, value, target, macs=macs)]

    return Pending((node.name,), finish)


def _scales(constant: Constant) -> NDArray[np.float64]:
    return np.broadcast_to(constant.scale.reshape(-1), len(constant.values)).astype(np.float64)


def _bias(found: Found, node: onnx.NodeProto, weights: Constant, view: View) -> NDArray[np.int64] | None:
    """What is added to the sums, in their own scale; None if it is computed elsewhere."""
    out = len(weights.values)
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(out, np.int64)
    bias = found.graph.constant(node.input[2])
    if bias is None or bias.values.dtype != np.int32 or bias.values.size != out:
        return None
    ratio = bias.scale.reshape(-1) / (_scales(weights) * view.value.quanta.scale)
    exact = np.where(np.abs(ratio - 1.0) < 1e-6, 1.0, ratio)  # the quantiser's own choice, but for float32's rounding
    sums: NDArray[np.int64] = np.rint(bias.values.reshape(-1) * exact).astype(np.int64)
    return sums


def _window(node: onnx.NodeProto) -> Window | None:
    """The window of a node over a picture; None if the core has no such."""
    fields = attributes(node)
    if fields.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    strides, dilations = fields.get("strides", [1, 1]), fields.get("dilations", [1, 1])
    pads = fields.get("pads", [0, 0, 0, 0])
    if len(strides) != 2 or max(*strides, *dilations) > _LARGEST:
        return None
    return Window((strides[0], strides[1]), (pads[0], pads[1], pads[2], pads[3]), (dilations[0], dilations[1]))


def _maximum(found: Found, node: onnx.NodeProto) -> Pending | None:
    view, window, fields = found.views.get(node.input[0]), _window(node), attributes(node)
    if view is None or view.flat or window is None or len(node.output) > 1 or max(fields["kernel_shape"]) > _LARGEST:
        return None
    kernel = (int(fields["kernel_shape"][0]), int(fields["kernel_shape"][1]))
    padding = _reaching(found, node, window, kernel)

    def finish(found: Found, target: Value, bounds: Bounds) -> list[Operation]:
        source = found.tensor(view)
        if source.quanta != target.quanta:
            raise CompileError(f"{node.name}: a maximum keeps the scale of what it is of")
        low, high = bounds.quantised(target.quanta)
        layer = pooling(source.channels, kernel, stride=window.stride, padding=padding, dilation=window.dilation)
        return [Operation((), "MaxPool", replace(layer, low=low, high=high), source, target)]

    return Pending((node.name,), finish)


def _reaching(found: Found, node: onnx.NodeProto, window: Window, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """The padding with what is missing for a last window that reaches over the edge (`ceil_mode`)."""
    before, after = found.graph.shape(node.input[0])[2:], found.graph.shape(node.output[0])[2:]
    ends = []
    for k in (0, 1):
        reach = (after[k] - 1) * window.stride[k] + (kernel[k] - 1) * window.dilation[k] + 1
        ends.append(max(window.padding[2 + k], reach - before[k] - window.padding[k]))
    return (window.padding[0], window.padding[1], ends[0], ends[1])


def _average(found: Found, node: onnx.NodeProto) -> Pending | None:
    """An average over a window, or over the whole picture."""
    view, fields = found.views.get(node.input[0]), attributes(node)
    if view is None or view.flat:
        return None
    window, kernel = Window(), view.picture
    if node.op_type == "ReduceMean":
        axes = found.graph.integers(node.input[1]) if len(node.input) > 1 and node.input[1] else fields.get("axes")
        if axes is None or sorted(axis % 4 for axis in axes) != [2, 3] or len(found.graph.shape(node.input[0])) != 4:
            return None
    elif node.op_type == "AveragePool":
        given = _window(node)
        if given is None or fields.get("ceil_mode") or (any(given.padding) and not fields.get("count_include_pad")):
            return None
        window, kernel = given, (int(fields["kernel_shape"][0]), int(fields["kernel_shape"][1]))
    if max(kernel) > _LARGEST:
        return None

    def finish(found: Found, target: Value, bounds: Bounds) -> list[Operation]:
        source = found.tensor(view)
        ones = np.ones((source.channels, 1, *kernel), np.int8)
        share = np.full(source.channels, 1.0 / math.prod(kernel))
        weights = Weights(ones, share, np.zeros(source.channels, np.int64), source.channels)
        layer = weighted(weights, window, source.quanta, target.quanta, bounds)
        return [Operation((), node.op_type, layer, source, target)]

    return Pending((node.name,), finish)


def _add(found: Found, node: onnx.NodeProto) -> Pending | None:
    """The sum of two tensors; one of them may have its channels picked anew on the way."""
    views = [found.views.get(name) for name in node.input]
    shapes = {found.graph.shape(name) for name in node.input}
    if len(shapes) > 1 or any(view is None or (view.flat and not view.is_whole) for view in views):
        return None
    left, right = (view for view in views if view is not None)

    def finish(found: Found, target: Value, bounds: Bounds) -> list[Operation]:
        made = [operation.target for operation in found.operations]
        # the later one may take the addition in; what it costs to copy the other is what an addition alone costs
        other, main = sorted((left, right), key=lambda view: made.index(view.value) if view.value in made else -1)
        skip = found.tensor(other)
        layer = addition(main, skip.quanta, target.quanta, bounds)
        return [Operation((), "Add", layer, main.value, target, skip)]

    return Pending((node.name,), finish)


def _concatenation(found: Found, node: onnx.NodeProto) -> Pending | None:
    """Channels of several tensors after each other: each is moved to its place and added to those before."""
    views = [view for view in map(found.views.get, node.input) if view is not None and not view.flat]
    if len(views) != len(node.input) or attributes(node).get("axis") != 1:
        return None

    def finish(_: Found, target: Value, bounds: Bounds) -> list[Operation]:
        made: list[Operation] = []
        for k, view in enumerate(_placed(views)):
            is_last = k == len(views) - 1
            held = bounds if is_last else Bounds()
            into = target if is_last else replace(target, name=f"{target.name}/part{k}")
            before = made[-1].target if made else None
            if before is None:
                layer = weighted(choice(view), Window(view.step), view.value.quanta, target.quanta, held)
            else:
                layer = addition(view, target.quanta, target.quanta, held)
            made.append(Operation((), "Concat", layer, view.value, into, before))
        return made

    return Pending((node.name,), finish)


def _placed(views: Sequence[View]) -> list[View]:
    """Each view with zeros where the channels of the others come."""
    total, start, found = sum(view.channels for view in views), 0, []
    for view in views:
        places = np.full(total, NOTHING)
        places[start : start + view.channels] = np.arange(view.channels)
        found.append(view.pick(places))
        start += view.channels
    return found


OPERATORS: Mapping[str, Callable[[Found, Any], Pending | None]] = {
    "Conv": _convolution, "Gemm": _linear, "MatMul": _linear, "MaxPool": _maximum, "AveragePool": _average,
    "GlobalAveragePool": _average, "ReduceMean": _average, "Add": _add, "Concat": _concatenation,
}  # fmt: skip
