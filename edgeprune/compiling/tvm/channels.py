"""Nodes that only rearrange channels become one `ChannelGather`: zero pads, parts, gathers, shuffles, constants behind.

A `ChannelGather` has two attributes: `map`, int64 [C_out], the input channel of each output channel, FILL where it has
none; and `fill`, float32 [C_out], the constant that stands there, zero elsewhere. Start with `merge_gathers`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from edgeprune.compiling.tvm.graph import Array, Graph, Node, drop_unused

_PART = "SplitPart"
FILL = -1  # in the map of a ChannelGather: this channel is constant


class _Picked(NamedTuple):
    """The tensor whose channels a node rearranges, and the map and fill of the result."""

    source: str
    map: Array
    fill: Array


def merge_gathers(graph: Graph) -> Graph:
    """Make one `ChannelGather` of each run of nodes that pad, slice, extend or gather along the channels."""
    uses, producers, nodes = graph.uses(), graph.producers(), []
    for node in (part for whole in graph.nodes for part in _parts(whole, graph)):
        picked = _shuffled(node, graph, producers) if node.op == "Reshape" else _picked(node, graph)
        if picked is not None:
            source, chosen, fill = picked
            inner = producers.get(source)
            if inner is not None and inner.op == "ChannelGather" and uses[source] == 1:
                fill = np.where(chosen == FILL, fill, inner.attrs["fill"][chosen])
                chosen = np.where(chosen == FILL, FILL, inner.attrs["map"][chosen])
                source = inner.inputs[0]
            node = Node("ChannelGather", node.name, (source,), node.outputs, {"map": chosen, "fill": fill})
            producers[node.outputs[0]] = node
        nodes.append(node)
    return drop_unused(replace(graph, nodes=tuple(nodes)))


def _parts(node: Node, graph: Graph) -> list[Node]:
    """A Split of channels as one `ChannelGather` a part; any other node as it is."""
    shape = graph.shapes.get(node.inputs[0], ()) if node.op == "Split" else ()
    if len(shape) not in (2, 4) or node.attrs.get("axis", 0) not in (1, 1 - len(shape)):
        return [node]
    widths = [graph.shapes.get(name, (0, 0))[1] for name in node.outputs]
    if sum(widths) != shape[1]:
        return [node]
    starts = np.cumsum([0, *widths])
    maps = [np.arange(start, start + width) for start, width in zip(starts, widths, strict=False)]
    return [
        replace(node, op=_PART, outputs=(name,), attrs={"map": chosen})
        for name, chosen in zip(node.outputs, maps, strict=True)
    ]


def _shuffled(node: Node, graph: Graph, producers: dict[str, Node]) -> _Picked | None:
    """An image whose channels are put in another order by a Reshape, a Transpose and this Reshape."""
    transpose = producers.get(node.inputs[0])
    reshape = producers.get(transpose.inputs[0]) if transpose is not None and transpose.op == "Transpose" else None
    if transpose is None or reshape is None or reshape.op != "Reshape":
        return None
    names = (reshape.inputs[0], reshape.outputs[0], node.outputs[0])
    given, between, result = (graph.shapes.get(name, ()) for name in names)
    if len(given) != 4 or len(result) != 4 or (given[0], *given[2:]) != (result[0], *result[2:]):
        return None
    numbers = np.arange(np.prod(given)).reshape(given)
    moved = numbers.reshape(between).transpose(transpose.attrs["perm"]).reshape(result)
    chosen = moved[0, :, 0, 0] // (given[2] * given[3])
    return _Picked(names[0], chosen, np.zeros(len(chosen), np.float32)) if (moved == numbers[:, chosen]).all() else None


def _picked(node: Node, graph: Graph) -> _Picked | None:
    """What a node rearranges; None for anything else, and for the operators that old opsets give attributes alone."""
    if node.op == "Concat":
        return _extended(node, graph)
    rules = {"Gather": _gathered, "Pad": _zero_padded, "Slice": _sliced, _PART: _split_off}
    old = len(node.inputs) < 2 and node.op != _PART
    if old or node.op not in rules or len(graph.shapes.get(node.inputs[0], ())) not in (2, 4):
        return None
    chosen = rules[node.op](node, graph)
    if chosen is None:
        return None
    return _Picked(node.inputs[0], chosen.astype(np.int64), np.zeros(len(chosen), np.float32))


def _extended(node: Node, graph: Graph) -> _Picked | None:
    """One tensor between constants that are the same for every pixel."""
    sources = [name for name in node.inputs if name not in graph.constants]
    shape = graph.shapes.get(sources[0], ()) if len(sources) == 1 else ()
    if len(shape) not in (2, 4) or node.attrs["axis"] not in (1, 1 - len(shape)):
        return None
    chosen, fill = [], []
    for name in node.inputs:
        constant = graph.constants.get(name)
        if constant is None:
            chosen.append(np.arange(shape[1]))
            fill.append(np.zeros(shape[1], np.float32))
            continue
        numbers = constant.swapaxes(0, 1).reshape(constant.shape[1], -1)
        if constant.dtype != np.float32 or not numbers.size or (numbers != numbers[:, :1]).any():
            return None
        chosen.append(np.full(len(numbers), FILL))
        fill.append(numbers[:, 0])
    return _Picked(sources[0], np.concatenate(chosen).astype(np.int64), np.concatenate(fill))


def _gathered(node: Node, graph: Graph) -> Array | None:
    picked, channels = graph.constants.get(node.inputs[1]), graph.shapes[node.inputs[0]][1]
    if picked is None or picked.ndim != 1 or node.attrs.get("axis", 0) != 1:
        return None
    return np.where(picked < 0, picked + channels, picked)


def _split_off(node: Node, graph: Graph) -> Array | None:
    """Which channels a part of a Split takes, as `_parts` has written it."""
    chosen: Array = node.attrs["map"]
    return chosen


def _sliced(node: Node, graph: Graph) -> Array | None:
    shape, given = graph.shapes[node.inputs[0]], [name for name in node.inputs[1:] if name]
    if not all(name in graph.constants for name in given) or len(node.inputs) < 4 or not node.inputs[3]:
        return None
    starts, ends, axes, *steps = (graph.constants[name].tolist() for name in given)
    step = steps[0][0] if steps else 1
    if [axis % len(shape) for axis in axes] != [1] or step < 1:
        return None
    return np.arange(shape[1])[starts[0] : ends[0] : step]


def _zero_padded(node: Node, graph: Graph) -> Array | None:
    constants, shape = graph.constants, graph.shapes[node.inputs[0]]
    if not _pads_with_zero(node, constants):
        return None
    rank = len(shape)
    axes = constants[node.inputs[3]].tolist() if len(node.inputs) > 3 and node.inputs[3] else range(rank)
    pads = constants[node.inputs[1]].tolist()
    around = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    before, after = around.pop(1, (0, 0))
    if min(before, after) < 0 or any(pair != (0, 0) for pair in around.values()):
        return None
    return np.concatenate([np.full(before, FILL), np.arange(shape[1]), np.full(after, FILL)])


def _pads_with_zero(node: Node, constants: dict[str, Array]) -> bool:
    value = constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.float32(0)
    known = all(name in constants for name in node.inputs[1:] if name)
    return known and node.attrs.get("mode", "constant") == "constant" and value is not None and float(value) == 0.0
