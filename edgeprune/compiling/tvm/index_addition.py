"""Index-additions as kernels: c_k = a[i_k] + b[j_k] + offset_k, clipped, written once and with nothing in between.

`convolve_add` is a convolution whose epilogue is the index-addition: while its result is in registers, constant
shuffles bring its channels into the lanes of the sum's, and the other operand is read through shuffles of its own.
`add` is the same for operands that no convolution makes for this sum alone. Which sums come here is settled in
`additions.py`, which filter is computed where in `slots.py`. The formula: effects_of_structured_pruning_2022, section
3.2, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgeprune.compiling.tvm.additions import Sum
from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.convolution import Window, pack_weight, tile_reads, with_border
from edgeprune.compiling.tvm.gather import lanes_from, loop, picked_vector, scheduled_kernel, sequence, shuffled, splat
from edgeprune.compiling.tvm.graph import Array
from edgeprune.compiling.tvm.layout import Stored, stored_channels, vector_lanes
from edgeprune.compiling.tvm.multiply import Operands, reduction
from edgeprune.compiling.tvm.slots import Slots, choose_slots
from edgeprune.compiling.tvm.tile import Factor, padded

_OPAQUE = 8  # TVM's operator pattern of what is never fused


def add(builder: relax.BlockBuilder, images: tuple[Stored, Stored], total: Sum, lanes: int) -> Stored:
    """Emit an index-addition in one pass over both operands.

    Args:
        builder: Where to emit.
        images: Operands of one image size.
        total: Which channels are added.
        lanes: float32 lanes of the target's vector.
    """
    channels = len(total.offset)
    width, stored = vector_lanes(channels, lanes), stored_channels(channels, lanes)
    whole, (*pixels, _) = total.stored(stored), images[0].shape
    shapes = [*(image.shape for image in images), (stored,), (*pixels, stored)]
    left, right, offset, result = (tirx.decl_buffer(shape, "float32", f"b{i}") for i, shape in enumerate(shapes))
    outer, col = tirx.Var("outer", "int32"), tirx.Var("col", "int32")
    pixel = [tirx.floordiv(outer, pixels[1]), tirx.floormod(outer, pixels[1]), col]
    stores = []
    for start in range(0, stored, width):
        at = lanes_from(start, width)
        terms = [
            picked_vector([image], pixel, [_source(channel) for channel in picked[start : start + width].tolist()])
            for image, picked in zip((left, right), whole.picked, strict=True)
        ]
        value = _clipped(total, terms[0] + terms[1] + tirx.BufferLoad(offset, [at]), width)
        stores.append(tirx.BufferStore(result, value, [*pixel, at]))
    body = loop(outer, pixels[0] * pixels[1], loop(col, pixels[2], sequence(stores)))
    arguments = [image.value for image in images]
    return _call(builder, "index_add", [left, right, offset, result], body, [*arguments, whole.offset], channels)


def convolve_add(
    builder: relax.BlockBuilder,
    images: tuple[Stored, Stored],
    weight: Array,
    window: Window,
    total: Sum,
    lanes: int,
    registers: int,
    factor: Factor,
) -> Stored:
    """Emit a dense convolution whose result is only the first operand of an index-addition.

    Args:
        builder: Where to emit.
        images: The convolution's input, and the other operand.
        weight: float32 [O, I, KH, KW]; the bias is in the sum's offset.
        window: Strides, padding and dilation.
        total: Which of the O filters and of the other operand's channels are added.
        lanes: float32 lanes of the target's vector.
        registers: The target's vector registers.
        factor: How the target multiplies vectors.
    """
    channels = len(total.offset)
    width, stored = vector_lanes(channels, lanes), stored_channels(channels, lanes)
    whole, size = total.stored(stored), images[1].shape[1:3]
    reads = tile_reads(images[0], weight, window, width)
    slots = choose_slots(whole.picked[0], width, size, weight[0].size, registers, reads)
    used = np.append(weight, np.zeros_like(weight[:1]), axis=0)[slots.filters.reshape(-1)]
    packed = pack_weight(used, len(used), slots.filters.shape[1])
    reach = window.input(padded(size[0], slots.tile.rows), padded(size[1], slots.tile.cols))
    source = images[0].value
    if window.leaves(images[0].shape[1:3], reach):
        source = builder.emit_te(
            lambda x: _bordered(x, window, reach),
            source,
            primfunc_name_hint="border",
            primfunc_attrs={"op_pattern": _OPAQUE},
        )
    shape = (*images[1].shape[:3], stored)
    kernel = _Kernel(factor, tuple(int(extent) for extent in source.ty.shape), packed.shape, images[1].shape, shape)
    body = kernel.body(slots, window, whole, width)
    arguments = [source, packed, images[1].value, whole.offset]
    return _call(builder, "conv2d_index_add", kernel.buffers, body, arguments, channels)


def _bordered(x: te.Tensor, window: Window, reach: tuple[int, int]) -> te.Tensor:
    return with_border(x, window, reach, 0.0)


class _Kernel:
    """The loops of `convolve_add`: blocks of channels, rows and columns of tiles, in each reduction and epilogue."""

    def __init__(self, factor: Factor, *shapes: tuple[int, ...]) -> None:
        image, weight, other, result = shapes
        named = {"image": image, "weight": weight, "other": other, "offset": (result[3],), "result": result}
        self.buffers = [tirx.decl_buffer(shape, "float32", name) for name, shape in named.items()]
        self.image, self.weight, self.other, self.offset, self.result = self.buffers
        self.size, self.factor = result[:3], factor

    def body(self, slots: Slots, window: Window, total: Sum, width: int) -> tirx.Stmt:
        """All loops."""
        tile, (batch, height, across) = slots.tile, self.size
        down = padded(height, tile.rows) // tile.rows
        outer, col_tile = tirx.Var("outer", "int32"), tirx.Var("col_tile", "int32")
        block = tirx.floordiv(outer, batch * down)
        image = tirx.floormod(tirx.floordiv(outer, down), batch)
        row, col = tirx.floormod(outer, down) * tile.rows, col_tile * tile.cols
        sums = tirx.decl_buffer((tile.rows * tile.cols * tile.vectors * slots.lanes,), "float32", "sums")
        corner = (image, row, col)
        inner = sequence(
            [
                tirx.AllocBuffer(sums),
                *self._zeroed(sums, slots.lanes),
                self._reduced(sums, block, corner, slots, window),
                self._written(sums, block, corner, slots, total, width),
            ]
        )
        col_loop = loop(col_tile, padded(across, tile.cols) // tile.cols, inner)
        return loop(outer, len(slots.outputs) * batch * down, col_loop)

    def _zeroed(self, sums: Any, width: int) -> list[tirx.Stmt]:
        starts = range(0, int(sums.shape[0]), width)
        return [tirx.BufferStore(sums, splat(0, width), [lanes_from(start, width)]) for start in starts]

    def _reduced(self, sums: Any, block: Any, corner: tuple[Any, Any, Any], slots: Slots, window: Window) -> tirx.Stmt:
        """The multiply-adds of one tile."""
        width, tile, (image, row, col) = slots.lanes, slots.tile, corner
        (step_h, step_w), (hole_h, hole_w) = window.strides, window.dilation
        _, extent_h, extent_w, channels, _ = (int(extent) for extent in self.weight.shape)

        def sum_at(down: Any, across: Any, vector: Any) -> tuple[Any, list[Any]]:
            return sums, [lanes_from(((down * tile.cols + across) * tile.vectors + vector) * width, width)]

        def pixel(kh: Any, kw: Any, down: Any, across: Any, channel: Any) -> Any:
            at = [image, (row + down) * step_h + kh * hole_h, (col + across) * step_w + kw * hole_w]
            return tirx.BufferLoad(self.image, [*at, channel])

        def weight(kh: Any, kw: Any, ic: Any, vector: Any) -> Any:
            return tirx.BufferLoad(self.weight, [block, kh, kw, ic, lanes_from(vector * width, width)])

        operands = Operands(sum_at, pixel, weight)
        return reduction(operands, tile, width, (extent_h, extent_w), channels, self.factor)

    def _written(
        self, sums: Any, block: Any, corner: tuple[Any, Any, Any], slots: Slots, total: Sum, width: int
    ) -> tirx.Stmt:
        """The vectors of the sum that the block has all filters of; which those are depends on the block alone."""
        cases = [self._tile_written(sums, corner, slots, vectors, total, width) for vectors in slots.outputs]
        written = cases[-1]
        for number, case in reversed(list(enumerate(cases[:-1]))):
            written = tirx.IfThenElse(block == number, case, written)
        return written

    def _tile_written(
        self,
        sums: Any,
        corner: tuple[Any, Any, Any],
        slots: Slots,
        vectors: Sequence[int],
        total: Sum,
        width: int,
    ) -> tirx.Stmt:
        tile, (_, height, across), (image, row, col) = slots.tile, self.size, corner
        pixels = [
            [image, row + number // tile.cols, col + number % tile.cols] for number in range(tile.rows * tile.cols)
        ]
        whole = height % tile.rows == 0 and across % tile.cols == 0
        if whole:  # pixels inside: what the shuffles of a vector need is loaded once for all of them
            return sequence(
                [
                    self._stored(sums, number, pixel, slots, vector, total, width)
                    for vector in vectors
                    for number, pixel in enumerate(pixels)
                ]
            )
        return sequence(
            [
                tirx.IfThenElse(
                    tirx.all(pixel[1] < height, pixel[2] < across),
                    sequence([self._stored(sums, number, pixel, slots, vector, total, width) for vector in vectors]),
                    None,
                )
                for number, pixel in enumerate(pixels)
            ]
        )

    def _stored(
        self, sums: Any, number: int, pixel: list[Any], slots: Slots, vector: int, total: Sum, width: int
    ) -> tirx.Stmt:
        """One vector of the sum at one pixel of the tile."""
        start, held, first = vector * width, slots.lanes, number * slots.tile.vectors * slots.lanes
        at = lanes_from(start, width)
        value = tirx.BufferLoad(self.offset, [at])
        places = slots.places[start : start + width]
        needed = sorted({place // held for place in places.tolist() if place != FILL})
        if needed:
            loads = [tirx.BufferLoad(sums, [lanes_from(first + part * held, held)]) for part in needed]
            lanes = [None if p == FILL else needed.index(p // held) * held + p % held for p in places.tolist()]
            value = value + shuffled(loads, lanes)
        sources = [_source(channel) for channel in total.picked[1][start : start + width].tolist()]
        if any(source is not None for source in sources):
            value = value + picked_vector([self.other], pixel, sources)
        return tirx.BufferStore(self.result, _clipped(total, value, width), [*pixel, at])


def _clipped(total: Sum, value: Any, lanes: int) -> Any:
    if total.low is not None:
        value = tirx.Max(value, splat(total.low, lanes))
    return value if total.high is None else tirx.Min(value, splat(total.high, lanes))


def _source(channel: int) -> tuple[int, int] | None:
    return None if channel == FILL else (0, channel)


def _call(
    builder: relax.BlockBuilder,
    name: str,
    buffers: list[Any],
    body: tirx.Stmt,
    arguments: list[Any],
    channels: int,
) -> Stored:
    """Emit a kernel that is written as it is to run, its last buffer being the result."""
    function = builder.add_func(scheduled_kernel(buffers, body), name)
    given = [relax.const(part) if isinstance(part, np.ndarray) else part for part in arguments]
    kind = relax.TensorType([int(extent) for extent in buffers[-1].shape], "float32")
    return Stored(builder.emit(relax.call_tir(function, given, kind)), channels, 4)
