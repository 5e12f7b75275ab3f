"""Copies that rearrange channels, as constant shuffles of whole vectors: what is left of gathers, and concatenation.

Which channel goes where is known when the network is compiled, so no index is read at run time. Each output vector is
a shuffle of as few loaded vectors as hold its channels; a zero vector stands for the channels that are zero. Start with
`rearrange`; `_vector` is the idea.
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
        tirx.BufferStore(output, _vector(inputs, pixel, sources[at : at + width]), [*pixel, _lanes_from(at, width)])
        for at in range(0, stored, width)
    ]
    body = tirx.For(col, 0, cols, tirx.ForKind.SERIAL, tirx.SeqStmt(stores) if len(stores) > 1 else stores[0])
    loop = tirx.For(outer, 0, batch * rows, tirx.ForKind.SERIAL, body)
    root = SBlockRealize([], True, SBlock([], [], [], "root", loop))  # TVM's passes look for it
    kernel = tirx.PrimFunc([*inputs, output], root)
    return kernel.with_attrs({"tirx.noalias": True, "op_pattern": _OPAQUE, SCHEDULED: True})


def _vector(inputs: Sequence[Any], pixel: list[Any], sources: Sequence[Source]) -> Any:
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
            load = tirx.BufferLoad(buffer, [*pixel, _lanes_from(start, span)])
            loads.append(_widened(load, span, width))
            left = [channel for channel in left if channel not in lane_of]
    zero = len(loads) * width
    lanes = [zero if source is None else place[source] for source in sources]
    if lanes == list(range(width)):
        return loads[0]
    return tirx.Shuffle([*loads, _zeros(width)], lanes)


def _widened(load: Any, span: int, width: int) -> Any:
    """A narrow vector with zeros behind, up to `width`."""
    return load if span == width else tirx.Shuffle([load, _zeros(width - span)], list(range(width)))


def _zeros(width: int) -> Any:
    zero = tirx.const(0, "float32")
    return tirx.Broadcast(zero, width) if width > 1 else zero


def _lanes_from(start: int, lanes: int) -> Any:
    return tirx.Ramp(start, 1, lanes) if lanes > 1 else tirx.const(start, "int32")
