"""Rewrites of a `Graph` that need its weights and nothing of TVM: index-additions become free where they can.

A shrunk residual network adds tensors that have different channels left, so one side is gathered into the channels of
the other: `Pad` appends a zero channel, `Gather` picks. `merge_gathers` makes one `ChannelGather` of the two.
`fold_gathers` then gives a gather that directly follows a convolution to the rows of the convolution's weights, where
that costs nothing: 13 and 16 filters take the same number of vectors. What is left is copied by `gather.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeprune.compiling.tvm.graph import Array, Graph, Node

FILL = -1  # in the map of a ChannelGather: this channel is zero

VectorCount = Callable[[int], int]


def rewrite(graph: Graph, vectors: VectorCount) -> Graph:
    """Apply every rewrite, then drop what nothing reads.

    Args:
        graph: The network as read.
        vectors: How many vectors hold so many channels.
    """
    return drop_unused(fold_gathers(merge_gathers(fold_batch_norms(graph)), vectors))


def fold_batch_norms(graph: Graph) -> Graph:
    """Give each batch-norm that alone reads a convolution to that convolution's weights and bias."""
    return _merge_into_convolutions(graph, "BatchNormalization", _with_batch_norm)


def fold_gathers(graph: Graph, vectors: VectorCount) -> Graph:
    """Give each channel gather that alone reads a convolution to its weights, if no vector is added by that."""

    def merged(conv: Node, gather: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array] | None:
        weight, bias = _weight_and_bias(conv, constants)
        picked = gather.attrs["map"]
        if vectors(len(picked)) > vectors(len(weight)):
            return None
        keep = (picked != FILL).astype(np.float32)
        return weight[picked] * keep.reshape(-1, 1, 1, 1), bias[picked] * keep

    return _merge_into_convolutions(graph, "ChannelGather", merged)


Merge = Callable[[Node, Node, dict[str, Array]], tuple[np.ndarray, Array] | None]


def _merge_into_convolutions(graph: Graph, op: str, merge: Merge) -> Graph:
    """Replace convolution and following `op` by one convolution wherever `merge` gives its weight and bias."""
    uses, constants, nodes = graph.uses(), dict(graph.constants), list(graph.nodes)
    index_of = {name: i for i, node in enumerate(nodes) for name in node.outputs}
    for i, node in enumerate(nodes):
        at = index_of.get(node.inputs[0]) if node.op == op else None
        conv = nodes[at] if at is not None else None
        if at is None or conv is None or not _is_plain_convolution(conv, constants) or uses[node.inputs[0]] != 1:
            continue
        new = merge(conv, node, constants)
        if new is None:
            continue
        names = tuple(f"{node.outputs[0]}/{part}" for part in ("weight", "bias"))
        constants.update(zip(names, new, strict=True))
        nodes[i] = replace(conv, inputs=(conv.inputs[0], *names), outputs=node.outputs)
        index_of[node.outputs[0]] = i
        nodes[at] = replace(conv, outputs=(f"{conv.outputs[0]}/unused",))
    return drop_unused(replace(graph, nodes=tuple(nodes), constants=constants))


def _is_plain_convolution(node: Node, constants: dict[str, Array]) -> bool:
    return (
        node.op == "Conv"
        and node.attrs.get("group", 1) == 1
        and all(name in constants for name in node.inputs[1:] if name)
        and constants[node.inputs[1]].ndim == 4
    )


def _weight_and_bias(conv: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array]:
    weight = constants[conv.inputs[1]]
    given = len(conv.inputs) > 2 and conv.inputs[2]
    return weight, constants[conv.inputs[2]] if given else np.zeros(len(weight), np.float32)


def _with_batch_norm(conv: Node, norm: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array] | None:
    if not all(name in constants for name in norm.inputs[1:]):
        return None
    weight, bias = _weight_and_bias(conv, constants)
    scale, shift = batch_norm_as_affine(norm, constants)
    return (weight * scale.reshape(-1, 1, 1, 1)).astype(np.float32), (bias * scale + shift).astype(np.float32)


def batch_norm_as_affine(norm: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array]:
    """Scale and shift, float64 [C] each, that a batch-norm in eval mode applies."""
    gamma, beta, mean, var = (constants[name].astype(np.float64) for name in norm.inputs[1:5])
    scale = gamma / np.sqrt(var + norm.attrs.get("epsilon", 1e-5))
    return scale, beta - mean * scale


def merge_gathers(graph: Graph) -> Graph:
    """Make one `ChannelGather` of each run of zero pads and gathers along the channels."""
    uses, producers, nodes = graph.uses(), graph.producers(), []
    for node in graph.nodes:
        picked = _channel_map(node, graph)
        if picked is not None:
            source = producers.get(node.inputs[0])
            if source is not None and source.op == "ChannelGather" and uses[source.outputs[0]] == 1:
                inner = source.attrs["map"]
                picked = np.where(picked == FILL, FILL, inner[np.minimum(picked, len(inner) - 1)])
                node = replace(node, inputs=source.inputs)
            node = Node("ChannelGather", node.name, (node.inputs[0],), node.outputs, {"map": picked})
            producers[node.outputs[0]] = node
        nodes.append(node)
    return drop_unused(replace(graph, nodes=tuple(nodes)))


def _channel_map(node: Node, graph: Graph) -> Array | None:
    """Which input channel each output channel of a pad or gather takes, int64 [C_out]; None for anything else."""
    constants = graph.constants
    if node.op not in ("Gather", "Pad") or len(graph.shapes.get(node.inputs[0], ())) not in (2, 4):
        return None
    if node.op == "Gather" and node.attrs.get("axis", 0) == 1 and node.inputs[1] in constants:
        picked = constants[node.inputs[1]]
        channels = graph.shapes[node.inputs[0]][1]
        return np.where(picked < 0, picked + channels, picked).astype(np.int64) if picked.ndim == 1 else None
    if node.op == "Pad" and _pads_with_zero(node, constants):
        rank = len(graph.shapes[node.inputs[0]])
        axes = constants[node.inputs[3]].tolist() if len(node.inputs) > 3 and node.inputs[3] else range(rank)
        pads = constants[node.inputs[1]].tolist()
        around = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
        before, after = around.pop(1, (0, 0))
        if min(before, after) < 0 or any(pair != (0, 0) for pair in around.values()):
            return None
        kept = np.arange(graph.shapes[node.inputs[0]][1])
        return np.concatenate([np.full(before, FILL), kept, np.full(after, FILL)]).astype(np.int64)
    return None


def _pads_with_zero(node: Node, constants: dict[str, Array]) -> bool:
    value = constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.float32(0)
    known = all(name in constants for name in node.inputs[1:] if name)
    return known and node.attrs.get("mode", "constant") == "constant" and value is not None and float(value) == 0.0


def drop_unused(graph: Graph) -> Graph:
    """Leave out nodes and constants that no result of the network depends on."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: value for name, value in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)
