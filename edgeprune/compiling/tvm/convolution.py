"""Convolution and matrix product: what is computed, on packed weights; `schedule.py` says in which order.

The weights `[O, I, KH, KW]` are packed `[O/B, KH, KW, I, B]`, B being the channels of one register tile, so that the
inner loop reads them in order. The result is computed up to full tiles (block `ACCUMULATE`) and cut to the image by the
block `RESULT`, into which everything elementwise that follows is fused. A matrix product is a 1x1 convolution over an
image of one row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgeprune.compiling.tvm.graph import Array
from edgeprune.compiling.tvm.layout import Stored, stored_channels, vector_lanes
from edgeprune.compiling.tvm.tile import Reads, Tile, choose_tile, padded

ACCUMULATE, RESULT, BORDER = "conv_accumulate", "conv_result", "conv_border"
TILE = "edgeprune.tile"  # annotation of ACCUMULATE: rows, cols, vectors, lanes, strides, dilation
GROUP = "edgeprune.group"  # annotation of ACCUMULATE where there are groups: input channels and filters of each
FUSABLE = 4  # TVM's operator pattern "elementwise operators may be fused behind it"


class Window:
    """Where a convolution or pooling window lies: kernel, strides, padding (top, left, bottom, right), dilation."""

    def __init__(self, kernel: tuple[int, int], strides: list[int], pads: list[int], dilation: list[int]) -> None:
        self.kernel, self.strides, self.pads, self.dilation = kernel, strides, pads, dilation

    def output(self, height: int, width: int, *, ceil: bool = False) -> tuple[int, int]:
        """Output rows and columns for an input of so many."""
        extents = []
        for axis, size in enumerate((height, width)):
            reach = size + self.pads[axis] + self.pads[axis + 2] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
            steps = -(-reach // self.strides[axis]) if ceil else reach // self.strides[axis]
            if ceil and steps * self.strides[axis] >= size + self.pads[axis]:
                steps -= 1  # the last window would begin behind the image
            extents.append(steps + 1)
        return extents[0], extents[1]

    def input(self, rows: int, cols: int) -> tuple[int, int]:
        """Input rows and columns, borders included, that so many outputs read."""
        reach = [
            (size - 1) * stride + dilation * (kernel - 1) + 1
            for size, stride, dilation, kernel in zip(
                (rows, cols), self.strides, self.dilation, self.kernel, strict=True
            )
        ]
        return reach[0], reach[1]

    def leaves(self, size: tuple[int, int], reach: tuple[int, int]) -> bool:
        """Whether so many input rows and columns, borders included, are more than an image of that size has."""
        return any(self.pads[:2]) or reach[0] > size[0] or reach[1] > size[1]


def convolve(
    builder: relax.BlockBuilder, image: Stored, weight: Array, window: Window, lanes: int, registers: int
) -> Stored:
    """Emit a dense convolution.

    Args:
        builder: Where to emit.
        image: Input, stored form of float32 [N, I, H, W].
        weight: float32 [O, I, KH, KW].
        window: Strides, padding and dilation.
        lanes: float32 lanes of the target's vector.
        registers: The target's vector registers.
    """
    _, height, width, _ = image.shape
    out_height, out_width = window.output(height, width)
    stored = stored_channels(len(weight), lanes)
    width_lanes = vector_lanes(len(weight), lanes)
    reads = tile_reads(image, weight, window, width_lanes)
    tile = choose_tile(out_height, out_width, stored // width_lanes, registers, reads)
    packed = pack_weight(weight, stored, tile.vectors * width_lanes)

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        return _accumulate(x, w, window, tile, width_lanes, (out_height, out_width))

    value = builder.emit_te(
        compute, image.value, relax.const(packed), primfunc_name_hint="conv2d", primfunc_attrs={"op_pattern": FUSABLE}
    )
    return Stored(value, len(weight), image.rank)


def convolve_depthwise(
    builder: relax.BlockBuilder, image: Stored, weight: Array, window: Window, lanes: int, registers: int
) -> Stored:
    """Emit a convolution of each channel with its own kernel; arguments as for `convolve`, weight [C, 1, KH, KW]."""
    _, height, width, stored = image.shape
    out = window.output(height, width)
    width_lanes = vector_lanes(len(weight), lanes)
    tile = choose_tile(*out, stored // width_lanes, registers)
    block = tile.vectors * width_lanes
    packed = pack_weight(weight, stored, block)[:, :, :, 0]

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        rows, cols = padded(out[0], tile.rows), padded(out[1], tile.cols)
        source = with_border(x, window, window.input(rows, cols), 0.0)
        kh, kw = te.reduce_axis((0, window.kernel[0]), "kh"), te.reduce_axis((0, window.kernel[1]), "kw")
        (step_h, step_w), (hole_h, hole_w) = window.strides, window.dilation

        def product(n: Any, h: Any, v: Any, o: Any) -> Any:
            pixel = source[n, h * step_h + kh * hole_h, v * step_w + kw * hole_w, o]
            return te.sum(pixel * w[o // block, kh, kw, o % block], axis=[kh, kw])

        marks = {TILE: [tile.rows, tile.cols, tile.vectors, width_lanes, *window.strides, *window.dilation]}
        full = te.compute((x.shape[0], rows, cols, stored), product, name=ACCUMULATE, attrs=marks)
        return te.compute((x.shape[0], *out, stored), lambda n, h, v, o: full[n, h, v, o], name=RESULT)

    value = builder.emit_te(
        compute,
        image.value,
        relax.const(packed),
        primfunc_name_hint="depthwise",
        primfunc_attrs={"op_pattern": FUSABLE},
    )
    return Stored(value, len(weight), 4)


def tile_reads(image: Stored, weight: Array, window: Window, lanes: int) -> Reads:
    """How the tiles of a dense convolution lie in memory; arguments as for `convolve`."""
    pixel = 4 * image.shape[3]
    down, across = window.strides
    return Reads(down * image.shape[2] * pixel, across * pixel, 4 * lanes * weight[0].size, lanes)


def pack_weight(weight: Array, stored: int, block: int) -> Array:
    """float32 [O, I, KH, KW] as [stored / block, KH, KW, I, block], filters behind O being zero."""
    out, channels, height, width = weight.shape
    full = np.zeros((stored, channels, height, width), np.float32)
    full[:out] = weight
    return np.ascontiguousarray(full.reshape(stored // block, block, channels, height, width).transpose(0, 3, 4, 2, 1))


def _accumulate(x: te.Tensor, w: te.Tensor, window: Window, tile: Tile, lanes: int, out: tuple[int, int]) -> te.Tensor:
    batch = x.shape[0]
    rows, cols = padded(out[0], tile.rows), padded(out[1], tile.cols)
    source = with_border(x, window, window.input(rows, cols), 0.0)
    blocks, kernel_h, kernel_w, channels, block = (int(extent) for extent in w.shape)
    kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")
    ic = te.reduce_axis((0, channels), "ic")
    (step_h, step_w), (hole_h, hole_w) = window.strides, window.dilation

    def product(n: Any, h: Any, v: Any, o: Any) -> Any:
        pixel = source[n, h * step_h + kh * hole_h, v * step_w + kw * hole_w, ic]
        return te.sum(pixel * w[o // block, kh, kw, ic, o % block], axis=[kh, kw, ic])

    marks = {TILE: [tile.rows, tile.cols, tile.vectors, lanes, *window.strides, *window.dilation]}
    full = te.compute((batch, rows, cols, blocks * block), product, name=ACCUMULATE, attrs=marks)
    shape = (batch, *out, blocks * block)
    return te.compute(shape, lambda n, h, v, o: full[n, h, v, o], name=RESULT)


def with_border(x: te.Tensor, window: Window, reach: tuple[int, int], fill: float) -> te.Tensor:
    """The input with its border written out, or itself where none is read: float32 [N, H', W', S]."""
    batch, height, width, stored = (int(extent) for extent in x.shape)
    top, left = window.pads[:2]
    if not window.leaves((height, width), reach):
        return x

    def pixel(n: Any, h: Any, v: Any, c: Any) -> Any:
        inside = tirx.all(h >= top, h < height + top, v >= left, v < width + left)
        return tirx.if_then_else(inside, x[n, h - top, v - left, c], tirx.const(fill, "float32"))

    return te.compute((batch, *reach, stored), pixel, name=BORDER)
