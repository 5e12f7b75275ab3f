"""One rule an operator: how it is computed on stored tensors. A new operator is one function and one line of `RULES`.

A rule gets the node and gives the value of its first output, or None where its case is not covered here: then TVM's own
converter takes the node (see `lower.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax, te

from edgeprune.compiling.tvm.activations import ACTIVATIONS
from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.convolution import Window, convolve, convolve_depthwise
from edgeprune.compiling.tvm.folding import batch_norm_as_affine
from edgeprune.compiling.tvm.gather import Source, rearrange
from edgeprune.compiling.tvm.graph import Array, Node
from edgeprune.compiling.tvm.grouped import convolve_grouped
from edgeprune.compiling.tvm.index_addition import add, convolve_add
from edgeprune.compiling.tvm.layout import Stored, stored_channels
from edgeprune.compiling.tvm.lower import BROADCAST, Lowering, Rule, Value
from edgeprune.compiling.tvm.operands import window_of, with_constant
from edgeprune.compiling.tvm.padding import pad
from edgeprune.compiling.tvm.pooling import average_pool, max_pool, spatial_mean
from edgeprune.compiling.tvm.resizing import resize
from edgeprune.compiling.tvm.softmax import softmax
from edgeprune.compiling.tvm.transposed import interleave
from edgeprune.compiling.tvm.winograd import convolve_winograd, winograd_blocks


def _conv(lowering: Lowering, node: Node) -> Value | None:
    weight = lowering.constant(node.inputs[1])
    bias = lowering.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if weight is None or weight.ndim != 4 or (bias is None and len(node.inputs) > 2 and node.inputs[2]):
        return None
    image, groups = lowering.stored(node.inputs[0]), node.attrs.get("group", 1)
    window = window_of(node, image, weight.shape[2:])
    if groups == 1:
        result = _dense(lowering, image, weight, window)
    elif groups == image.channels == len(weight):
        image = _restore(lowering, image, stored_channels(image.channels, lowering.lanes))
        result = convolve_depthwise(lowering.builder, image, weight, window, lowering.lanes, lowering.registers)
    else:
        lanes, registers = lowering.lanes, lowering.registers
        result = convolve_grouped(lowering.builder, image, weight, window, groups, lanes, registers)
    return result if bias is None else with_constant(lowering, relax.op.add, result, bias.reshape(-1, 1, 1))


def _dense(lowering: Lowering, image: Stored, weight: Array, window: Window) -> Stored:
    """A dense convolution, by whichever way is cheaper."""
    blocks = winograd_blocks(image, weight, window, lowering.machine)
    if blocks is not None:
        return convolve_winograd(lowering.builder, image, weight, window, lowering.lanes, blocks)
    return convolve(lowering.builder, image, weight, window, lowering.lanes, lowering.registers)


def _gemm(lowering: Lowering, node: Node) -> Value | None:
    weight = lowering.constant(node.inputs[1])
    bias = lowering.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1, np.float32)
    if weight is None or bias is None or not lowering.can_store(node.inputs[0]) or node.attrs.get("transA", 0):
        return None
    weight = weight if node.attrs.get("transB", 0) else weight.T
    result = _matrix_product(lowering, lowering.stored(node.inputs[0]), weight * np.float32(node.attrs.get("alpha", 1)))
    if result is None or len(node.inputs) < 3:
        return result
    return with_constant(lowering, relax.op.add, result, bias * np.float32(node.attrs.get("beta", 1)))


def _matmul(lowering: Lowering, node: Node) -> Value | None:
    weight = lowering.constant(node.inputs[1])
    if weight is None or weight.ndim != 2 or not lowering.can_store(node.inputs[0]):
        return None
    return _matrix_product(lowering, lowering.stored(node.inputs[0]), weight.T)


def _matrix_product(lowering: Lowering, rows: Stored, weight: Array) -> Value | None:
    """float32 [M, K] times the transpose of float32 [N, K]."""
    if rows.rank != 2:
        return None
    window = Window((1, 1), [1, 1], [0, 0, 0, 0], [1, 1])
    filters = np.ascontiguousarray(weight)[:, :, None, None]
    return convolve(lowering.builder, rows, filters, window, lowering.lanes, lowering.registers)


def _binary(make: Callable[..., relax.Expr]) -> Rule:
    def rule(lowering: Lowering, node: Node) -> Value | None:
        left, right = (lowering.constant(name) for name in node.inputs)
        if left is not None and right is None and lowering.can_store(node.inputs[1]):
            image = lowering.stored(node.inputs[1])
            return with_constant(lowering, lambda x, c: make(c, x), image, left)
        if not lowering.can_store(node.inputs[0]):
            return None
        image = lowering.stored(node.inputs[0])
        if right is not None:
            return with_constant(lowering, make, image, right)
        if not lowering.can_store(node.inputs[1]):
            return None
        other = lowering.stored(node.inputs[1])
        if (image.channels, image.rank) != (other.channels, other.rank):
            return None
        wide = max(image.shape[3], other.shape[3])
        pair = [_restore(lowering, each, wide).value for each in (image, other)]
        return Stored(lowering.builder.emit(make(*pair)), image.channels, image.rank)

    return rule


def _batch_norm(lowering: Lowering, node: Node) -> Value | None:
    if not lowering.can_store(node.inputs[0]) or any(lowering.constant(name) is None for name in node.inputs[1:]):
        return None
    image = lowering.stored(node.inputs[0])
    shape = (-1, 1, 1) if image.rank == 4 else (-1,)
    scale, shift = (a.astype(np.float32).reshape(shape) for a in batch_norm_as_affine(node, lowering.graph.constants))
    scaled = with_constant(lowering, relax.op.multiply, image, scale)
    return with_constant(lowering, relax.op.add, scaled, shift) if isinstance(scaled, Stored) else None


def _channel_gather(lowering: Lowering, node: Node) -> Value | None:
    picked, fill = node.attrs["map"], node.attrs["fill"]
    images, sources = _channels(lowering, node.inputs[0])
    stored = stored_channels(len(picked), lowering.lanes)
    taken = [None if channel == FILL else sources[channel] for channel in picked.tolist()]
    image = result = rearrange(lowering.builder, images, taken, stored, lowering.lanes)
    if not fill.any():
        return result
    return with_constant(lowering, relax.op.add, result, fill.reshape(-1, 1, 1) if image.rank == 4 else fill)


def _index_add(lowering: Lowering, node: Node) -> Value | None:
    left, right = (lowering.stored(name) for name in node.inputs)
    return add(lowering.builder, (left, right), node.attrs["total"], lowering.lanes)


def _convolve_index_add(lowering: Lowering, node: Node) -> Value | None:
    """A `ConvIndexAdd`: input, weight, other operand."""
    image, other = lowering.stored(node.inputs[0]), lowering.stored(node.inputs[2])
    weight = lowering.graph.constants[node.inputs[1]]
    window = window_of(node, image, weight.shape[2:])
    total, lanes, registers, factor = node.attrs["total"], lowering.lanes, lowering.registers, lowering.factor
    if winograd_blocks(image, weight, window, lowering.machine) is not None:
        return add(lowering.builder, (_dense(lowering, image, weight, window), other), total, lanes)
    return convolve_add(lowering.builder, (image, other), weight, window, total, lanes, registers, factor)


def _pick(lowering: Lowering, image: Stored, picked: Array, stored: int) -> Stored:
    """The channels `picked` (int [C_out], FILL being a channel of zeros) of an image, as a copy."""
    sources: list[Source] = [None if channel == FILL else (0, channel) for channel in picked.tolist()]
    return rearrange(lowering.builder, [image], sources, stored, lowering.lanes)


def _restore(lowering: Lowering, image: Stored, stored: int) -> Stored:
    """The same tensor stored with that many channels."""
    if image.shape[3] == stored:
        return image
    return _pick(lowering, image, np.arange(image.channels), stored)


def _reshape(lowering: Lowering, node: Node) -> Value | None:
    """Between [N, C, 1, 1] and [N, C] nothing moves."""
    image, target = lowering.values.get(node.inputs[0]), lowering.graph.shapes.get(node.outputs[0])
    if not isinstance(image, Stored) or target is None:
        return None
    n, h, w, stored = image.shape
    if image.rank == 4 and (h, w) == (1, 1) and target == (n, image.channels):
        return Stored(lowering.builder.emit(relax.op.reshape(image.value, (1, 1, n, stored))), image.channels, 2)
    if image.rank == 2 and target == (w, image.channels, 1, 1):
        return Stored(lowering.builder.emit(relax.op.reshape(image.value, (w, 1, 1, stored))), image.channels, 4)
    return None


def _slice(lowering: Lowering, node: Node) -> Value | None:
    """Rows and columns at a stride."""
    if not lowering.can_store(node.inputs[0]):
        return None
    image = lowering.stored(node.inputs[0])
    cuts = _cuts(lowering, node, image.rank)
    if image.rank != 4 or not cuts or not set(cuts) <= {2, 3} or any(step < 1 for _, _, step in cuts.values()):
        return None
    n, height, width, stored = image.shape
    (top, rows, down), (left, cols, across) = (
        _positions(cuts.get(axis, (0, size, 1)), size) for axis, size in ((2, height), (3, width))
    )

    def compute(x: te.Tensor) -> te.Tensor:
        shape = (n, rows, cols, stored)
        return te.compute(shape, lambda n, h, w, c: x[n, top + h * down, left + w * across, c], name="slice")

    return Stored(lowering.emit(compute, image.value, hint="slice", pattern=BROADCAST), image.channels, 4)


def _cuts(lowering: Lowering, node: Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step of a Slice by axis, None if one of its inputs is not constant.

    Axes and steps may be left out: then they are the first axes, and 1.
    """
    named = dict(zip(("starts", "ends", "axes", "steps"), node.inputs[1:], strict=False))
    found = {part: lowering.constant(name) for part, name in named.items() if name}
    given = {part: values.tolist() for part, values in found.items() if values is not None}
    if len(given) < len(found) or "starts" not in given:
        return None
    count = len(given["starts"])
    axes, steps = given.get("axes", range(count)), given.get("steps", [1] * count)
    cuts = zip(given["starts"], given["ends"], steps, strict=True)
    return {axis % rank: cut for axis, cut in zip(axes, cuts, strict=True)}


def _positions(cut: tuple[int, int, int], size: int) -> tuple[int, int, int]:
    """First position, number of positions and step of a slice."""
    taken = range(size)[slice(*cut)]
    return taken.start, len(taken), taken.step


def _concat(lowering: Lowering, node: Node) -> Value | None:
    if not all(lowering.can_store(name) for name in node.inputs):
        return None
    if any(lowering.stored(name).rank != 4 for name in node.inputs) or node.attrs["axis"] not in (1, -3):
        return None
    images, sources = _channels_of(lowering, node.inputs)
    return rearrange(lowering.builder, images, sources, stored_channels(len(sources), lowering.lanes), lowering.lanes)


def _channels(lowering: Lowering, name: str) -> tuple[list[Stored], list[Source]]:
    """The images that a value's channels lie in, and where; those of a concatenation before it is made."""
    node, value = lowering.producers.get(name), lowering.stored(name)
    joined = node is not None and node.op == "Concat" and value.rank == 4 and node.attrs["axis"] in (1, -3)
    return _channels_of(lowering, node.inputs if node is not None and joined else (name,))


def _channels_of(lowering: Lowering, names: Sequence[str]) -> tuple[list[Stored], list[Source]]:
    """Images side by side: they, and the image and channel of each channel of theirs."""
    images = [lowering.stored(name) for name in names]
    return images, [(i, channel) for i, image in enumerate(images) for channel in range(image.channels)]


def _pass(lowering: Lowering, node: Node) -> Value | None:
    return lowering.values.get(node.inputs[0])


RULES: dict[str, Rule] = {
    **ACTIVATIONS,
    "Add": _binary(relax.op.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "ChannelGather": _channel_gather,
    "Concat": _concat,
    "Conv": _conv,
    "ConvIndexAdd": _convolve_index_add,
    "Div": _binary(relax.op.divide),
    "Dropout": _pass,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": spatial_mean,
    "Identity": _pass,
    "IndexAdd": _index_add,
    "Interleave": interleave,
    "MatMul": _matmul,
    "MaxPool": max_pool,
    "Mul": _binary(relax.op.multiply),
    "Pad": pad,
    "ReduceMean": spatial_mean,
    "Reshape": _reshape,
    "Resize": resize,
    "Slice": _slice,
    "Softmax": softmax,
    "Sub": _binary(relax.op.subtract),
}
