"""Groups of a width that neither fills vectors nor divides one get filters of zeros behind, which a gather leaves out.

    act(Conv(x), 3 filters a group)  ->  ChannelGather(act(Conv(x), 4 filters a group))

That is one copy of the result, and each group begins in a lane of its own. Start with `fill_up_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeprune.compiling.tvm.folding import weight_and_bias
from edgeprune.compiling.tvm.graph import Array, Graph, Node, clip_bounds
from edgeprune.compiling.tvm.layout import whole_width

_POINTWISE = ("Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh")


def fill_up_groups(graph: Graph, lanes: int) -> Graph:
    """Fill up the groups of each grouped convolution to a width that `grouped.py` computes.

    Args:
        graph: The network.
        lanes: float32 lanes of the target's vector.
    """
    constants, nodes = dict(graph.constants), []
    followers: set[str] = set()
    gathers: dict[str, Node] = {}
    for node in graph.nodes:
        (result, *_), inputs = node.outputs, node.inputs
        if _is_grouped(node, constants):
            groups, filters = node.attrs["group"], len(constants[node.inputs[1]])
            whole = whole_width(filters // groups, lanes)
            if whole * groups != filters:
                chain = [node, *_followers(graph, node)]
                followers.update(each.outputs[0] for each in chain[1:])
                gathers[chain[-1].outputs[0]] = _gather(chain[-1], groups, filters // groups, whole)
                inputs = (inputs[0], *_filled(node, constants, whole))
        elif result in followers:
            inputs = (_filled_name(inputs[0]), *inputs[1:])
        changed = inputs != node.inputs
        nodes.append(replace(node, inputs=inputs, outputs=(_filled_name(result),)) if changed else node)
        if result in gathers:
            nodes.append(gathers[result])
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _filled_name(name: str) -> str:
    return f"{name}/filled"


def _is_grouped(node: Node, constants: dict[str, Array]) -> bool:
    """Whether a node is a convolution of images with constant weights and several groups, of one channel or more."""
    if node.op != "Conv" or node.attrs.get("group", 1) == 1:
        return False
    known = all(name in constants for name in node.inputs[1:] if name)
    return known and constants[node.inputs[1]].ndim == 4 and not is_depthwise(node, constants)


def is_depthwise(node: Node, constants: dict[str, Array]) -> bool:
    """Whether each channel of a convolution has one filter of its own."""
    weight = constants[node.inputs[1]]
    return bool(node.attrs.get("group", 1) == len(weight) and weight.shape[1] == 1)


def _filled(node: Node, constants: dict[str, Array], whole: int) -> tuple[str, str]:
    """The names of a convolution's weight and bias with so many filters a group, which are added to the constants."""
    weight, bias = weight_and_bias(node, constants)
    groups = node.attrs["group"]
    behind = whole - len(weight) // groups
    by_group = np.pad(weight.reshape(groups, -1, *weight.shape[1:]), [(0, 0), (0, behind), *[(0, 0)] * 3])
    names = (f"{node.outputs[0]}/filled_weight", f"{node.outputs[0]}/filled_bias")
    constants[names[0]] = by_group.reshape(-1, *weight.shape[1:])
    constants[names[1]] = np.pad(bias.reshape(groups, -1), [(0, 0), (0, behind)]).reshape(-1)
    return names


def _followers(graph: Graph, node: Node) -> Iterator[Node]:
    """The nodes behind, one after the other, that compute each number by itself, and alone read it."""
    uses, readers = graph.uses(), {name: node for node in graph.nodes for name in node.inputs}
    while uses[node.outputs[0]] == 1 and node.outputs[0] in readers:
        node = readers[node.outputs[0]]
        if node.op not in _POINTWISE and (node.op != "Clip" or clip_bounds(node, graph.constants) is None):
            return
        yield node


def _gather(node: Node, groups: int, width: int, whole: int) -> Node:
    """The gather that leaves filled-up channels out of a node's result."""
    picked = (np.arange(groups)[:, None] * whole + np.arange(width)).reshape(-1)
    attrs = {"map": picked, "fill": np.zeros(len(picked), np.float32)}
    return Node("ChannelGather", f"{node.name}/filled", (_filled_name(node.outputs[0]),), node.outputs, attrs)
