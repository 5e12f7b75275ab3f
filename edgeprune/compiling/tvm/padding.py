"""Zeros around an image, and rows and columns of pixels cut off it: negative pads, as shifted images have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx

from edgeprune.compiling.tvm.graph import Node
from edgeprune.compiling.tvm.layout import Stored
from edgeprune.compiling.tvm.lower import BROADCAST, Lowering, Value


def pad(lowering: Lowering, node: Node) -> Value | None:
    """A Pad of rows and columns by zeros; None for any other."""
    sides = _sides(lowering, node)
    if sides is None or not lowering.can_store(node.inputs[0]):
        return None
    image = lowering.stored(node.inputs[0])
    if image.rank != 4:
        return None
    (top, bottom), (left, right) = sides
    n, height, width, stored = image.shape
    shape = (n, height + top + bottom, width + left + right, stored)

    def compute(x: te.Tensor) -> te.Tensor:
        def pixel(n: Any, h: Any, w: Any, c: Any) -> Any:
            value = x[n, h - top, w - left, c]
            inside = [h >= top] if top > 0 else []
            inside += [h < top + height] if bottom > 0 else []
            inside += [w >= left] if left > 0 else []
            inside += [w < left + width] if right > 0 else []
            return te.if_then_else(tirx.all(*inside), value, tirx.const(0.0, "float32")) if inside else value

        return te.compute(shape, pixel, name="pad")

    return Stored(lowering.emit(compute, image.value, hint="pad", pattern=BROADCAST), image.channels, 4)


def _sides(lowering: Lowering, node: Node) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Zeros before and behind, for rows and for columns; None where other axes or other numbers are padded."""
    given = [name for name in node.inputs[1:] if name]
    found = [lowering.constant(name) for name in node.inputs[1:] if name]
    known = [constant for constant in found if constant is not None]
    if node.attrs.get("mode", "constant") != "constant" or len(known) < len(given):
        return None
    named = dict(zip((place for place, name in enumerate(node.inputs[1:]) if name), known, strict=True))
    if 0 not in named or np.any(named.get(1, np.float32(0)) != 0):
        return None
    pads = named[0].tolist()
    axes = named[2].tolist() if 2 in named else range(4)
    around = {axis % 4: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
    rows, columns = around.pop(2, (0, 0)), around.pop(3, (0, 0))
    return (rows, columns) if all(pair == (0, 0) for pair in around.values()) else None
