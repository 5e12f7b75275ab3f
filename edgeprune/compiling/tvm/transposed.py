"""Transposed convolutions as ordinary ones: with stride s, each s-th row of the result is a convolution of the input.

    ConvTranspose(x, stride 2)  ->  Interleave(Conv(x), Conv(x), Conv(x), Conv(x))

The rows of one remainder modulo s read the kernel's rows of one remainder, and so do columns; each such `Phase` is a
convolution of stride 1 with part of the kernel. Phases that read the same pixels are one convolution of more filters:
with a kernel of the stride's size that is all of them. Start with `split_transposed`.

Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016 (arXiv 1609.07009).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import Any

import numpy as np
from tvm import te, tirx

from edgeprune.compiling.tvm.convolution import FUSABLE
from edgeprune.compiling.tvm.graph import Array, Graph, Node
from edgeprune.compiling.tvm.layout import Stored, stored_channels
from edgeprune.compiling.tvm.lower import Lowering, Value

STEPS = "edgeprune.steps"  # annotation of a block whose value depends on rows and columns modulo these numbers


@dataclass(frozen=True)
class Phase:
    """Along one axis, what the result's positions of one remainder read.

    Attributes:
        taps: The kernel's positions, in the order of the input positions that they multiply.
        first: The input position that the first of them multiplies for the first of those results.
        hole: Distance between the input positions of two taps.
    """

    taps: tuple[int, ...]
    first: int
    hole: int

    @property
    def reads(self) -> tuple[int, int, int]:
        """What two phases must share to be one convolution."""
        return len(self.taps), self.first, self.hole

    def pads(self, size: int, out: int) -> tuple[int, int]:
        """Padding of the input before and behind, negative where it is cut, for so many results."""
        return -self.first, out + self.hole * (len(self.taps) - 1) - size + self.first


def phases(kernel: int, stride: int, dilation: int, before: int) -> list[Phase]:
    """The phases of one axis by remainder; one that no tap reaches gets a tap outside of the kernel.

    Args:
        kernel: Its extent.
        stride: Of the transposed convolution.
        dilation: Of its kernel.
        before: Its padding before the first result.

    >>> [phase.taps for phase in phases(3, 2, 1, 1)]
    [(1,), (2, 0)]
    """
    found = []
    for remainder in range(stride):
        taps = [tap for tap in reversed(range(kernel)) if (remainder + before - tap * dilation) % stride == 0]
        first = (remainder + before - taps[0] * dilation) // stride if taps else 0
        found.append(Phase(tuple(taps) or (kernel,), first, dilation // gcd(dilation, stride)))
    return found


def split_transposed(graph: Graph, lanes: int) -> Graph:
    """Make ordinary convolutions and an `Interleave` of each transposed convolution of images with constant weights.

    Args:
        graph: The network.
        lanes: float32 lanes of the target's vector.
    """
    constants, nodes, shapes = dict(graph.constants), [], dict(graph.shapes)
    for node in graph.nodes:
        if node.op == "ConvTranspose" and _is_split(node, graph):
            nodes += _split(node, constants, shapes, lanes)
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants, shapes=shapes)


def _is_split(node: Node, graph: Graph) -> bool:
    known = all(name in graph.constants for name in node.inputs[1:] if name)
    plain = node.attrs.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attrs
    shaped = all(len(graph.shapes.get(name, ())) == 4 for name in (node.inputs[0], node.outputs[0]))
    return known and plain and shaped


def _split(node: Node, constants: dict[str, Array], shapes: dict[str, tuple[int, ...]], lanes: int) -> list[Node]:
    attrs, name = node.attrs, node.outputs[0]
    strides, dilations, pads = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1]), attrs.get("pads", [0] * 4)
    weight = by_filter(constants[node.inputs[1]], attrs.get("group", 1))
    batch, filters, *extents = shapes[name]
    bias = constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else np.zeros(filters, np.float32)
    down, across = (phases(weight.shape[2 + i], strides[i], dilations[i], pads[i]) for i in range(2))
    out = [-(-extent // stride) for extent, stride in zip(extents, strides, strict=True)]
    step = stored_channels(filters, lanes)
    nodes, places = [], {}
    for number, members in enumerate(_convolutions(down, across, shared=attrs.get("group", 1) == 1)):
        first = down[members[0][0]], across[members[0][1]]
        sides = [
            phase.pads(size, rows) for phase, size, rows in zip(first, shapes[node.inputs[0]][2:], out, strict=True)
        ]
        names = tuple(f"{name}/{number}/{part}" for part in ("weight", "bias", "phase"))
        constants[names[0]] = _side_by_side([_part(weight, down[i], across[j]) for i, j in members], step)
        constants[names[1]] = _side_by_side([bias] * len(members), step)
        shapes[names[2]] = (batch, len(constants[names[1]]), *out)
        places.update({at: (number, position * step) for position, at in enumerate(members)})
        window = {"pads": [side[i] for i in range(2) for side in sides], "dilations": [phase.hole for phase in first]}
        attributes = {"group": attrs.get("group", 1), **window}
        nodes.append(Node("Conv", f"{node.name}/{number}", (node.inputs[0], *names[:2]), names[2:], attributes))
    given = {"strides": tuple(strides), "places": places, "channels": filters, "size": tuple(extents)}
    return [*nodes, Node("Interleave", node.name, tuple(each.outputs[0] for each in nodes), node.outputs, given)]


def _convolutions(down: list[Phase], across: list[Phase], *, shared: bool) -> list[list[tuple[int, int]]]:
    """The remainders of rows and columns that each convolution computes; those that read alike are one if `shared`."""
    alike: dict[Any, list[tuple[int, int]]] = {}
    for i, j in product(range(len(down)), range(len(across))):
        alike.setdefault((down[i].reads, across[j].reads) if shared else (i, j), []).append((i, j))
    return list(alike.values())


def by_filter(weight: Array, groups: int) -> Array:
    """A transposed convolution's float32 [I, O / groups, KH, KW] as a convolution's [O, I / groups, KH, KW]."""
    channels, made, height, width = weight.shape
    grouped = weight.reshape(groups, channels // groups, made, height, width)
    return grouped.swapaxes(1, 2).reshape(groups * made, channels // groups, height, width)


def _part(weight: Array, rows: Phase, cols: Phase) -> Array:
    """The taps of two phases; one outside of the kernel is zero."""
    outside = np.pad(weight, [(0, 0), (0, 0), (0, 1), (0, 1)])
    return outside[:, :, list(rows.taps)][:, :, :, list(cols.taps)]


def _side_by_side(parts: list[Array], step: int) -> Array:
    """Arrays one after the other along their first axis, each but the last filled up to `step`."""
    last = len(parts) - 1
    filled = [np.pad(part, [(0, step - len(part)), *[(0, 0)] * (part.ndim - 1)]) for part in parts[:last]]
    return np.ascontiguousarray(np.concatenate([*filled, parts[last]]))


def interleave(lowering: Lowering, node: Node) -> Value | None:
    """Rule of an `Interleave`: rows and columns of several images in turn."""
    images = [lowering.stored(name) for name in node.inputs]
    (down, across), places, channels = node.attrs["strides"], node.attrs["places"], node.attrs["channels"]
    shape = (images[0].shape[0], *node.attrs["size"], stored_channels(channels, lowering.lanes))

    def compute(*given: te.Tensor) -> te.Tensor:
        def pixel(n: Any, h: Any, v: Any, c: Any) -> Any:
            if len(given) == 1 and places == {(i, j): (0, (i * across + j) * shape[3]) for i, j in places}:
                return given[0][n, h // down, v // across, (h % down * across + v % across) * shape[3] + c]
            values = {at: given[image][n, h // down, v // across, start + c] for at, (image, start) in places.items()}
            chosen = values.pop((0, 0))
            for (i, j), value in values.items():
                chosen = tirx.if_then_else(tirx.all(h % down == i, v % across == j), value, chosen)
            return chosen

        return te.compute(shape, pixel, name="interleave", attrs={STEPS: [down, across]})

    arguments = [image.value for image in images]
    return Stored(lowering.emit(compute, *arguments, hint="interleave", pattern=FUSABLE), channels, 4)
