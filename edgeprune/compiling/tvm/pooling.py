"""Rules of the pooling operators: windows, and the mean of a whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te

from edgeprune.compiling.tvm.convolution import FUSABLE, Window, with_border
from edgeprune.compiling.tvm.graph import Array, Node
from edgeprune.compiling.tvm.layout import Stored
from edgeprune.compiling.tvm.lower import Lowering, Value
from edgeprune.compiling.tvm.operands import window_of, with_constant


def max_pool(lowering: Lowering, node: Node) -> Value | None:
    """Rule of MaxPool."""
    return _pool(lowering, node, te.max, float(np.finfo(np.float32).min)) if len(node.outputs) == 1 else None


def average_pool(lowering: Lowering, node: Node) -> Value | None:
    """Rule of AveragePool: the sum of each window times a constant, which knows how much of it lies in the image."""
    if node.attrs.get("ceil_mode", 0):
        return None
    total = _pool(lowering, node, te.sum, 0.0)
    if total is None:
        return None
    image = lowering.stored(node.inputs[0])
    _, height, width, _ = image.shape
    window = window_of(node, image, tuple(node.attrs["kernel_shape"]))
    rows, cols = (
        _covered(size, axis, window, include=bool(node.attrs.get("count_include_pad", 0)))
        for axis, size in enumerate((height, width))
    )
    return with_constant(lowering, relax.op.multiply, total, (1 / np.outer(rows, cols)).astype(np.float32)[None, None])


def _covered(size: int, axis: int, window: Window, *, include: bool) -> Array:
    """How many positions of each window along an axis count towards its mean."""
    before, after = window.pads[axis], window.pads[axis + 2]
    counted = np.pad(np.ones(size), (before, after), constant_values=float(include))
    starts = np.arange(window.output(size, size)[axis]) * window.strides[axis]
    steps = np.arange(window.kernel[axis]) * window.dilation[axis]
    return np.asarray(counted[starts[:, None] + steps].sum(axis=1))


def _pool(lowering: Lowering, node: Node, combine: Callable[..., Any], fill: float) -> Stored | None:
    if not lowering.can_store(node.inputs[0]) or len(node.attrs["kernel_shape"]) != 2:
        return None
    image = lowering.stored(node.inputs[0])
    n, height, width, stored = image.shape
    window = window_of(node, image, tuple(node.attrs["kernel_shape"]))
    rows, cols = window.output(height, width, ceil=bool(node.attrs.get("ceil_mode", 0)))
    (step_h, step_w), (hole_h, hole_w) = window.strides, window.dilation

    def compute(x: te.Tensor) -> te.Tensor:
        source = with_border(x, window, window.input(rows, cols), fill)
        kh, kw = te.reduce_axis((0, window.kernel[0]), "kh"), te.reduce_axis((0, window.kernel[1]), "kw")
        return te.compute(
            (n, rows, cols, stored),
            lambda n, h, w, c: combine(source[n, h * step_h + kh * hole_h, w * step_w + kw * hole_w, c], axis=[kh, kw]),
            name="pool",
        )

    return Stored(lowering.emit(compute, image.value, hint="pool", pattern=FUSABLE), image.channels, 4)


def spatial_mean(lowering: Lowering, node: Node) -> Value | None:
    """Rule of GlobalAveragePool, and of ReduceMean over rows and columns."""
    if not lowering.can_store(node.inputs[0]):
        return None
    image = lowering.stored(node.inputs[0])
    if image.rank != 4 or (node.op == "ReduceMean" and sorted(axis % 4 for axis in _axes(lowering, node)) != [2, 3]):
        return None
    n, height, width, stored = image.shape
    keep = node.op == "GlobalAveragePool" or bool(node.attrs.get("keepdims", 1))

    def compute(x: te.Tensor) -> te.Tensor:
        h, w = te.reduce_axis((0, height), "h"), te.reduce_axis((0, width), "w")
        shape = (n, 1, 1, stored) if keep else (1, 1, n, stored)
        return te.compute(shape, lambda a, _, b, c: te.sum(x[a if keep else b, h, w, c], axis=[h, w]), name="total")

    total = Stored(lowering.emit(compute, image.value, hint="mean", pattern=FUSABLE), image.channels, 4 if keep else 2)
    return with_constant(lowering, relax.op.multiply, total, np.full(1, 1 / (height * width), np.float32))


def _axes(lowering: Lowering, node: Node) -> list[int]:
    """The axes that a ReduceMean names: an attribute before opset 18, then an input; none if it names none."""
    given = lowering.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return list(node.attrs.get("axes", [])) if given is None else [int(axis) for axis in given]
