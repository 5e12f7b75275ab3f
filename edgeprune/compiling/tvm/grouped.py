"""Grouped convolutions: each group of filters reads channels of its own. Start with `convolve_grouped`.

Groups that fill whole vectors are dense convolutions side by side, and take the same inner loop. Where a vector holds
several narrow groups, the pixel that each of its lanes multiplies is put in place by a constant shuffle, so that four
channels a group cost no more vectors than a dense convolution has. Widths in between are filled up by `groups.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, te

from edgeprune.compiling.tvm.convolution import (
    ACCUMULATE,
    FUSABLE,
    GROUP,
    RESULT,
    TILE,
    Window,
    pack_weight,
    tile_reads,
    with_border,
)
from edgeprune.compiling.tvm.gather import rearrange
from edgeprune.compiling.tvm.graph import Array
from edgeprune.compiling.tvm.layout import Stored, stored_channels, vector_lanes
from edgeprune.compiling.tvm.tile import Tile, choose_tile, padded


def convolve_grouped(
    builder: relax.BlockBuilder, image: Stored, weight: Array, window: Window, groups: int, lanes: int, registers: int
) -> Stored:
    """Emit a convolution of `groups` groups.

    Args:
        builder: Where to emit.
        image: Input, stored form of float32 [N, I, H, W].
        weight: float32 [O, I / groups, KH, KW]; O / groups fills vectors or divides one (see `whole_width`).
        window: Strides, padding and dilation.
        groups: Their number.
        lanes: float32 lanes of the target's vector.
        registers: The target's vector registers.
    """
    out, width = window.output(*image.shape[1:3]), vector_lanes(len(weight), lanes)
    made, given, stored = len(weight) // groups, weight.shape[1], stored_channels(len(weight), lanes)
    if made % width == 0:
        tile = choose_tile(*out, made // width, registers, tile_reads(image, weight, window, width))
    else:
        tile = choose_tile(*out, stored // width, registers)
    read = max(groups, -(-stored // made)) * given
    if read > image.shape[3]:  # the last vector holds fewer groups than it could
        sources = [(0, channel) for channel in range(image.channels)]
        image = rearrange(builder, [image], sources, read, lanes)
    packed = pack_weight(weight, stored, tile.vectors * width)

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        return _accumulate(x, w, window, tile, width, out, made)

    value = builder.emit_te(
        compute, image.value, relax.const(packed), primfunc_name_hint="grouped", primfunc_attrs={"op_pattern": FUSABLE}
    )
    return Stored(value, len(weight), 4)


def _accumulate(
    x: te.Tensor, w: te.Tensor, window: Window, tile: Tile, lanes: int, out: tuple[int, int], made: int
) -> te.Tensor:
    rows, cols = padded(out[0], tile.rows), padded(out[1], tile.cols)
    source = with_border(x, window, window.input(rows, cols), 0.0)
    blocks, kernel_h, kernel_w, given, block = (int(extent) for extent in w.shape)
    kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")
    ic = te.reduce_axis((0, given), "ic")
    (step_h, step_w), (hole_h, hole_w) = window.strides, window.dilation
    first = first_channel(block, given, made)

    def product(n: Any, h: Any, v: Any, o: Any) -> Any:
        start = first(o // block) if made % block == 0 else o // made * given
        pixel = source[n, h * step_h + kh * hole_h, v * step_w + kw * hole_w, start + ic]
        return te.sum(pixel * w[o // block, kh, kw, ic, o % block], axis=[kh, kw, ic])

    marks = {
        TILE: [tile.rows, tile.cols, tile.vectors, lanes, *window.strides, *window.dilation],
        GROUP: [given, made],
    }
    full = te.compute((x.shape[0], rows, cols, blocks * block), product, name=ACCUMULATE, attrs=marks)
    return te.compute((x.shape[0], *out, blocks * block), lambda n, h, v, o: full[n, h, v, o], name=RESULT)


def first_channel(block: int, given: int, made: int) -> Callable[[Any], Any]:
    """The first input channel that a block of filters reads, by the block's number.

    Args:
        block: Filters a block.
        given: Input channels a group.
        made: Filters a group; a multiple of the block, or a divisor.
    """
    if made % block == 0:
        return lambda number: number // (made // block) * given
    return lambda number: number * (block // made * given)
