"""Copies that rearrange channels, as constant shuffles of whole vectors: what is left of gathers, and concatenation.

Which channel goes where is known when the network is compiled, so no index is read at run time. Each output vector is
a shuffle of as few loaded vectors as hold its channels; a zero vector stands for the channels that are zero. Start with
`rearrange`; `picked_vector` is the idea.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, tirx
from tvm.s_tir import SBlock, SBlockRealize

from edgeprune.compiling.tvm.layout import Stored, vector_lanes

SCHEDULED = "edgeprune.scheduled"  # attribute of a kernel that is written as it is to run
_OPAQUE = 8  # TVM's operator pattern of what is never fused

Source = tuple[int, int] | None  # input and channel; None is zero


def rearrange(
    builder: relax.BlockBuilder, images: Sequence[Stored], sources: Sequence[Source], stored: int, lanes: int
) -> Stored:
    """Emit a copy whose channel c is `sources[c]`.

    Args:
        builder: Where to emit.
        images: Inputs of one image size.
        sources: Input and channel of each output channel, or None for zero.
        stored: Channels the output is stored with, at least as many; those behind are zero.
        lanes: float32 lanes of the target's vector.
    """
    *pixels, _ = images[0].shape
    padded = [*sources, *[None] * (stored - len(sources))]
    kernel = _kernel([image.shape for image in images], (*pixels, stored), padded, vector_lanes(len(sources), lanes))
    name = builder.add_func(kernel, "gather")
    result = relax.TensorType((*pixels, stored), "float32")
    value = builder.emit(relax.call_tir(name, [image.value for image in images], result))
    return Stored(value, len(sources), images[0].rank)


def _kernel(
    shapes: Sequence[tuple[int, ...]], result: tuple[int, ...], sources: Sequence[Source], width: int
) -> tirx.PrimFunc:
    *inputs, output = (tirx.decl_buffer(shape, "float32", f"buffer_{i}") for i, shape in enumerate([*shapes, result]))
    batch, rows, cols, stored = result
    outer, col = tirx.Var("outer", "int32"), tirx.Var("col", "int32")
    pixel = [tirx.floordiv(outer, rows), tirx.floormod(outer, rows), col]
    width = width if stored % width == 0 else 1
    stores = [
        tirx.BufferStore(
            output, picked_vector(inputs, pixel, sources[at : at + width]), [*pixel, lanes_from(at, width)]
        )
        for at in range(0, stored, width)
    ]
    return scheduled_kernel([*inputs, output], loop(outer, batch * rows, loop(col, cols, sequence(stores))))


def scheduled_kernel(buffers: list[Any], body: tirx.For) -> tirx.PrimFunc:
    """A kernel that is written as it is to run; its outermost loop may be shared between threads."""
    root = SBlockRealize([], True, SBlock([], [], [], "root", body))  # TVM's passes look for it
    return tirx.PrimFunc(buffers, root).with_attrs({"tirx.noalias": True, "op_pattern": _OPAQUE, SCHEDULED: True})


def in_parallel(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """The same kernel with its outermost loop shared between threads."""
    outer = kernel.body.block.body
    body = tirx.For(outer.loop_var, outer.min, outer.extent, tirx.ForKind.PARALLEL, outer.body)
    return kernel.with_body(SBlockRealize([], True, SBlock([], [], [], "root", body)))


def loop(variable: tirx.Var, extent: int, body: tirx.Stmt) -> tirx.For:
    """A serial loop from 0."""
    return tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, body)


def sequence(statements: Sequence[tirx.Stmt]) -> tirx.Stmt:
    """Statements one after the other."""
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def picked_vector(inputs: Sequence[Any], pixel: list[Any], sources: Sequence[Source]) -> Any:
    """One output vector: a shuffle of the windows of `len(sources)` channels that hold its sources."""
    width = len(sources)
    loads: list[Any] = []
    place: dict[Source, int] = {}
    for k, buffer in enumerate(inputs):
        left = sorted({source[1] for source in sources if source is not None and source[0] == k})
        limit = int(buffer.shape[3])
        span = min(width, limit)
        while left:
            start = min(left[0], limit - span)
            lane_of = {channel: channel - start for channel in left if channel < start + span}
            offset = len(loads) * width
            place.update({(k, channel): offset + lane for channel, lane in lane_of.items()})
            load = tirx.BufferLoad(buffer, [*pixel, lanes_from(start, span)])
            loads.append(load if span == width else shuffled([load], [*range(span), *[None] * (width - span)]))
            left = [channel for channel in left if channel not in lane_of]
    return shuffled(loads, [None if source is None else place[source] for source in sources])


def shuffled(vectors: Sequence[Any], lanes: Sequence[int | None]) -> Any:
    """The given lanes of vectors put one after the other; None is zero."""
    if list(lanes) == list(range(len(lanes))):
        return vectors[0]
    held = sum(int(vector.ty.dtype.lanes) for vector in vectors)
    zeros = [splat(0, len(lanes))] if None in lanes else []
    return tirx.Shuffle([*vectors, *zeros], [held if lane is None else lane for lane in lanes])


def splat(value: float, lanes: int) -> Any:
    """A vector of one number."""
    number = tirx.const(value, "float32")
    return tirx.Broadcast(number, lanes) if lanes > 1 else number


def lanes_from(start: int, lanes: int) -> Any:
    """The index of so many channels in a row."""
    return tirx.Ramp(start, 1, lanes) if lanes > 1 else tirx.const(start, "int32")
