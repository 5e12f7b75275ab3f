"""The parts of a network that the core leaves to the host, as ONNX files of their own. Start with `part`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.compiling.fpga.qdq import DEQUANTISE, QUANTISE, Graph

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class HostPart:
    """What the host computes at one place of the network.

    Attributes:
        model: The part.
        inputs, outputs: Names of its tensors.
        nodes: Names of what it computes, quantisations apart, and their operators.
        macs: Multiply-adds of these.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[tuple[str, str], ...]
    macs: int


def needed(graph: Graph, wanted: Collection[str], known: Collection[str]) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes that make some tensors from known ones, in order, and which of those they read."""
    names, nodes, reads, seen = list(wanted), set(), [], set()
    while names:
        name = names.pop()
        if name in seen or not name or name in graph.constants:
            continue
        seen.add(name)
        if name in known or name not in graph.producers:
            reads.append(name)
            continue
        node = graph.producers[name]
        nodes.add(id(node))
        names += node.input
    return [node for node in graph.nodes if id(node) in nodes], sorted(reads)


def part(graph: Graph, wanted: Sequence[str], known: Collection[str]) -> HostPart:
    """The part of a network that makes some tensors from known ones."""
    from onnx import helper

    nodes, reads = needed(graph, wanted, known)
    used = {name for node in nodes for name in node.input}
    body = helper.make_graph(
        nodes,
        "host",
        [graph.described[name] for name in reads],
        [graph.described[name] for name in wanted],
        [one for one in graph.model.graph.initializer if one.name in used],
    )
    model = helper.make_model(body, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)
    computed = [node for node in nodes if node.op_type not in (QUANTISE, DEQUANTISE)]
    return HostPart(
        model,
        tuple(reads),
        tuple(wanted),
        tuple((node.name, node.op_type) for node in computed),
        sum(graph.macs(node) for node in computed),
    )
