"""Index-additions of a `Graph`: each sum of gathered channels becomes one node that knows all of its operands' indices.

    act(Add(gather(a), gather(b)) + constants)        ->  IndexAdd(a, b)
    act(Add(gather(conv(x)), gather(b)) + constants)  ->  ConvIndexAdd(x, weight, b)

`act` being Relu, Clip or nothing, and one of the gathers optional. The attributes are those of the convolution and
`total`, a `Sum`, in whose offset the bias and all constants are. Start with `fuse_additions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.folding import is_plain_convolution, weight_and_bias
from edgeprune.compiling.tvm.graph import Array, Graph, Node, clip_bounds, drop_unused


@dataclass(frozen=True)
class Sum:
    """What is added.

    Attributes:
        picked: For each operand int [C]: the channel of it that each channel of the sum takes, FILL for none.
        offset: float32 [C], added to the sum.
        low: The result is at least this, None for no bound.
        high: The result is at most this, None for no bound.
    """

    picked: tuple[Array, Array]
    offset: Array
    low: float | None = None
    high: float | None = None

    def stored(self, channels: int) -> Sum:
        """The same with channels behind that are made of nothing, up to so many."""
        behind = channels - len(self.offset)
        left, right = (np.pad(part, (0, behind), constant_values=FILL) for part in self.picked)
        return replace(self, picked=(left, right), offset=np.pad(self.offset, (0, behind)).astype(np.float32))


class _Operand(NamedTuple):
    """The tensor an operand's channels come from, which ones, and the constants in place of others."""

    source: str
    map: Array
    fill: Array
    convolution: Node | None  # makes the tensor, for this sum alone

    @property
    def is_gathered(self) -> bool:
        """Whether its channels are others than the source's, in another order, or constants in part."""
        return not np.array_equal(self.map, np.arange(len(self.map))) or bool(self.fill.any())


class _Network:
    """A graph with who makes and who reads each value."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.producers, self.uses = graph, graph.producers(), graph.uses()
        self.readers = {name: node for node in graph.nodes for name in node.inputs}

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads a value."""
        return self.readers.get(name) if self.uses[name] == 1 else None

    def operand(self, name: str) -> _Operand:
        """An addition's operand, looked at through its gather."""
        node, channels = self.producers.get(name), self.graph.shapes[name][1]
        chosen, fill = np.arange(channels), np.zeros(channels, np.float32)
        if node is not None and node.op == "ChannelGather" and self.uses[name] == 1:
            name, chosen, fill = node.inputs[0], node.attrs["map"], node.attrs["fill"]
            node = self.producers.get(name)
        taken = chosen[chosen != FILL]
        once = len(taken) > 0 and len(np.unique(taken)) == len(taken)
        if node is None or not once or self.uses[name] != 1 or not is_plain_convolution(node, self.graph.constants):
            node = None
        return _Operand(name, chosen, fill, node)


def fuse_additions(graph: Graph) -> Graph:
    """Make one node of each addition of images of which an operand is gathered."""
    network, constants, nodes = _Network(graph), dict(graph.constants), []
    absorbed: set[str] = set()
    for node in graph.nodes:
        operands = [network.operand(name) for name in node.inputs] if _adds_images(node, graph) else []
        if any(operand.is_gathered for operand in operands):
            total, followers = _with_followers(network, node, operands)
            last = followers[-1] if followers else node
            absorbed.update(follower.outputs[0] for follower in followers)
            nodes.append(_fused(operands, total, replace(node, outputs=last.outputs), constants))
        elif not absorbed.intersection(node.outputs):
            nodes.append(node)
    return drop_unused(replace(graph, nodes=tuple(nodes), constants=constants))


def _adds_images(node: Node, graph: Graph) -> bool:
    """Whether a node adds two images of one shape that both depend on the network's input."""
    shapes = {graph.shapes.get(name, ()) for name in node.inputs}
    computed = not any(name in graph.constants for name in node.inputs)
    return node.op == "Add" and computed and len(shapes) == 1 and len(shapes.pop()) == 4


def _with_followers(network: _Network, node: Node, operands: list[_Operand]) -> tuple[Sum, list[Node]]:
    """The sum of the operands, and the nodes behind it that it takes over: constants added, then an activation."""
    constants, followers = network.graph.constants, []
    offset = operands[0].fill.astype(np.float64) + operands[1].fill
    after = network.only_reader(node.outputs[0])
    added = _channel_constant(after, len(offset), constants) if after is not None else None
    if after is not None and added is not None:
        offset = offset + added
        followers.append(after)
        after = network.only_reader(after.outputs[0])
    bounds = _bounds(after, constants) if after is not None else None
    if after is not None and bounds is not None:
        followers.append(after)
    low, high = bounds or (None, None)
    return Sum((operands[0].map, operands[1].map), offset, low, high), followers


def _channel_constant(node: Node, channels: int, constants: dict[str, Array]) -> Array | None:
    """The constant that a node adds to each channel of an image, float64 [C] or [1]; None for anything else."""
    given = [constants[name] for name in node.inputs if name in constants]
    if node.op != "Add" or len(given) != 1 or given[0].ndim > 4:
        return None
    image = given[0].reshape((1,) * (4 - given[0].ndim) + given[0].shape)
    fits = image.shape[1] in (1, channels) and image.size == image.shape[1]
    return image.reshape(-1).astype(np.float64) if fits else None


def _bounds(node: Node, constants: dict[str, Array]) -> tuple[float | None, float | None] | None:
    """The bounds of an activation that only clips."""
    if node.op == "Relu":
        return 0.0, None
    return clip_bounds(node, constants) if node.op == "Clip" else None


def _fused(operands: list[_Operand], total: Sum, node: Node, constants: dict[str, Array]) -> Node:
    """The node of a sum; the convolution that it takes over, if any, is the one with the longer reduction."""
    made = [(i, o.convolution) for i, o in enumerate(operands) if o.convolution is not None]
    if not made:
        sources = (operands[0].source, operands[1].source)
        return Node("IndexAdd", node.name, sources, node.outputs, {"total": total})
    number, convolution = max(made, key=lambda each: constants[each[1].inputs[1]][0].size)
    mine, other = operands[number], operands[1 - number]
    _, bias = weight_and_bias(convolution, constants)
    given = np.where(mine.map == FILL, 0.0, bias.astype(np.float64)[mine.map])
    total = replace(total, picked=(mine.map, other.map), offset=total.offset + given)
    inputs = (convolution.inputs[0], convolution.inputs[1], other.source)
    return Node("ConvIndexAdd", node.name, inputs, node.outputs, {**convolution.attrs, "total": total})
