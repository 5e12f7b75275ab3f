"""What several rules share: a node's window, and constants brought into stored form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from edgeprune.compiling.tvm.convolution import Window
from edgeprune.compiling.tvm.graph import Array, Node
from edgeprune.compiling.tvm.layout import Stored
from edgeprune.compiling.tvm.lower import Lowering, Value


def window_of(node: Node, image: Stored, kernel: tuple[int, ...]) -> Window:
    """The window that a node's attributes describe; `auto_pad` is resolved for the image's size."""
    attrs, (_, height, width, _) = node.attrs, image.shape
    strides, dilation = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    pads = attrs.get("pads", [0, 0, 0, 0])
    if attrs.get("auto_pad", "NOTSET").startswith("SAME"):
        pads = [0, 0, 0, 0]
        for axis, size in enumerate((height, width)):
            reach = (-(-size // strides[axis]) - 1) * strides[axis] + dilation[axis] * (kernel[axis] - 1) + 1
            both = max(0, reach - size)
            first = both // 2 if attrs["auto_pad"] == "SAME_UPPER" else both - both // 2
            pads[axis], pads[axis + 2] = first, both - first
    return Window((int(kernel[0]), int(kernel[1])), list(strides), list(pads), list(dilation))


def with_constant(lowering: Lowering, make: Callable[..., relax.Expr], image: Stored, constant: Array) -> Value | None:
    """Combine a stored tensor with a constant that broadcasts to it."""
    if constant.ndim > image.rank or constant.dtype != np.float32:
        return None
    full = constant.reshape((1,) * (image.rank - constant.ndim) + constant.shape)
    full = full.transpose(0, 2, 3, 1) if image.rank == 4 else full[None, None]
    n, h, w, stored = image.shape
    if full.shape[3] not in (1, image.channels) or any(
        mine not in (1, theirs) for mine, theirs in zip(full.shape[:3], (n, h, w), strict=True)
    ):
        return None
    if full.shape[3] != 1:
        full = np.pad(full, [(0, 0)] * 3 + [(0, stored - image.channels)])
    value = make(image.value, relax.const(np.ascontiguousarray(full)))
    return Stored(lowering.builder.emit(value), image.channels, image.rank)
