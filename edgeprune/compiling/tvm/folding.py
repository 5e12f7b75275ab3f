"""What follows a convolution becomes part of its weights and bias: batch-norms, and channel gathers where that is free.

A gather is free where it adds no vector of filters: 13 and 16 take the same number. Start with `fold_batch_norms` or
`fold_gathers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.graph import Array, Graph, Node, drop_unused

VectorCount = Callable[[int], int]


def fold_batch_norms(graph: Graph) -> Graph:
    """Give each batch-norm that alone reads a convolution to that convolution's weights and bias."""
    return _merge_into_convolutions(graph, "BatchNormalization", _with_batch_norm)


def fold_gathers(graph: Graph, vectors: VectorCount) -> Graph:
    """Give each channel gather that alone reads a convolution to its weights, if no vector is added by that."""

    def merged(conv: Node, gather: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array] | None:
        weight, bias = weight_and_bias(conv, constants)
        picked = gather.attrs["map"]
        if vectors(len(picked)) > vectors(len(weight)):
            return None
        keep = (picked != FILL).astype(np.float32)
        return weight[picked] * keep.reshape(-1, 1, 1, 1), bias[picked] * keep + gather.attrs["fill"]

    return _merge_into_convolutions(graph, "ChannelGather", merged)


Merge = Callable[[Node, Node, dict[str, Array]], tuple[np.ndarray, Array] | None]


def _merge_into_convolutions(graph: Graph, op: str, merge: Merge) -> Graph:
    """Replace convolution and following `op` by one convolution wherever `merge` gives its weight and bias."""
    uses, constants, nodes = graph.uses(), dict(graph.constants), list(graph.nodes)
    index_of = {name: i for i, node in enumerate(nodes) for name in node.outputs}
    for i, node in enumerate(nodes):
        at = index_of.get(node.inputs[0]) if node.op == op else None
        conv = nodes[at] if at is not None else None
        if at is None or conv is None or not is_plain_convolution(conv, constants) or uses[node.inputs[0]] != 1:
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


def is_plain_convolution(node: Node, constants: dict[str, Array]) -> bool:
    """Whether a node is a dense convolution of images with constant weights."""
    return (
        node.op == "Conv"
        and node.attrs.get("group", 1) == 1
        and all(name in constants for name in node.inputs[1:] if name)
        and constants[node.inputs[1]].ndim == 4
    )


def weight_and_bias(conv: Node, constants: dict[str, Array]) -> tuple[Array, Array]:
    """Weight and bias of a plain convolution, zeros where it has no bias."""
    weight = constants[conv.inputs[1]]
    given = len(conv.inputs) > 2 and conv.inputs[2]
    return weight, constants[conv.inputs[2]] if given else np.zeros(len(weight), np.float32)


def _with_batch_norm(conv: Node, norm: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array] | None:
    if not all(name in constants for name in norm.inputs[1:]):
        return None
    weight, bias = weight_and_bias(conv, constants)
    scale, shift = batch_norm_as_affine(norm, constants)
    return (weight * scale.reshape(-1, 1, 1, 1)).astype(np.float32), (bias * scale + shift).astype(np.float32)


def batch_norm_as_affine(norm: Node, constants: dict[str, Array]) -> tuple[np.ndarray, Array]:
    """Scale and shift, float64 [C] each, that a batch-norm in eval mode applies."""
    gamma, beta, mean, var = (constants[name].astype(np.float64) for name in norm.inputs[1:5])
    scale = gamma / np.sqrt(var + norm.attrs.get("epsilon", 1e-5))
    return scale, beta - mean * scale
