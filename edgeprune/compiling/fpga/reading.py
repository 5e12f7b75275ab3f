"""From an int8 ONNX network to the operations of the core. Start with `read`.

The graph is read in order. What is computed in float32 between a dequantisation and a quantisation is held back
(`found.Pending`) until the quantisation says what its values mean; then it becomes operations in integers. What only
moves values becomes a view. Nodes that are not known here, and those whose numbers the core cannot hold, are left to
the host: their int8 inputs and outputs are where host and core meet.

TVM's importer is not used for it: it keeps the quantised form as float32 convolutions, so that the same patterns would
have to be found again, and the names of nodes, which the report tells, are lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprune.compiling.fpga import moving, summing
from edgeprune.compiling.fpga.found import Found, Pending
from edgeprune.compiling.fpga.operations import Bounds, Operation, Value, View, Window, choice, value_of, weighted
from edgeprune.compiling.fpga.qdq import DEQUANTISE, QUANTISE, Graph
from edgeprune.errors import CompileError

if TYPE_CHECKING:
    import onnx


def read(graph: Graph) -> Found:
    """The operations that a network is, as far as the core can compute them."""
    found = Found(graph)
    for node in graph.nodes:
        if node.op_type == DEQUANTISE:
            _dequantise(found, node)
        elif node.op_type == QUANTISE:
            _quantise(found, node)
        elif node.op_type in ("Relu", "Clip"):
            _activate(found, node)
        elif node.op_type in moving.OPERATORS:
            view = moving.OPERATORS[node.op_type](found, node)
            if view is not None:
                found.views[node.output[0]] = view
        elif node.op_type in summing.OPERATORS:
            pending = summing.OPERATORS[node.op_type](found, node)
            if pending is not None:
                found.pending[node.output[0]] = pending
    return found


def _dequantise(found: Found, node: onnx.NodeProto) -> None:
    """A float32 tensor that is a view of an int8 one; the host makes that if the core does not."""
    name, quanta = node.input[0], found.graph.quanta(node)
    if name in found.graph.constants or quanta is None:
        return
    if name not in found.quantised:
        shape = found.graph.shape(name)
        if len(shape) not in (2, 4) or shape[0] != 1 or 0 in shape:
            return
        found.fed[name] = value_of(name, shape, quanta)
        found.quantised[name] = View(found.fed[name])
    if found.quantised[name].value.quanta == quanta:
        found.views[node.output[0]] = found.quantised[name]


def _quantise(found: Found, node: onnx.NodeProto) -> None:
    """An int8 tensor: another name of a view, or the end of what was pending."""
    name, quanta = node.input[0], found.graph.quanta(node)
    view, pending = found.views.get(name), found.pending.get(name)
    shape = found.graph.shape(node.output[0]) or found.graph.shape(name)
    if quanta is None or len(shape) not in (2, 4):
        return
    if view is not None and view.value.quanta == quanta:
        found.quantised[node.output[0]] = view
        return
    if pending is None and view is not None:
        pending = _as_pending(view, node.name)
    if pending is None:
        return
    target = value_of(node.output[0], shape, quanta)
    before = len(found.operations)
    try:
        made = pending.finish(found, target, pending.bounds)
    except CompileError:  # numbers that the core cannot hold: the host computes it
        found.forget(before)
        return
    found.operations += [replace(one, nodes=pending.nodes if one is made[-1] else ()) for one in made]
    found.quantised[node.output[0]] = View(target)


def _activate(found: Found, node: onnx.NodeProto) -> None:
    """A ReLU or a clip: it narrows what is pending, or a view that becomes pending by it."""
    name, bounds = node.input[0], _bounds(found, node)
    view, pending = found.views.get(name), found.pending.get(name)
    if pending is not None:
        pending = replace(pending, nodes=(*pending.nodes, node.name))
    elif view is not None:
        pending = _as_pending(view, node.name)
    if pending is not None and bounds is not None:
        found.pending[node.output[0]] = replace(pending, bounds=pending.bounds.both(bounds))


def _bounds(found: Found, node: onnx.NodeProto) -> Bounds | None:
    """What an activation holds values in; None if it is computed."""
    if node.op_type == "Relu":
        return Bounds(low=0.0)
    ends = []
    for name, default in zip((*node.input[1:], "", ""), (-float("inf"), float("inf")), strict=False):
        constant = found.graph.constants.get(name)
        if name and (constant is None or constant.size != 1):
            return None
        ends.append(default if constant is None else float(constant.reshape(())))
    return Bounds(*ends)


def _as_pending(view: View, name: str) -> Pending | None:
    """A view whose values are clamped, or quantised anew."""
    if view.flat and not view.is_whole:
        return None

    def finish(_: Found, target: Value, bounds: Bounds) -> list[Operation]:
        layer = weighted(choice(view), Window(view.step), view.value.quanta, target.quanta, bounds)
        return [Operation((), "Requantise", layer, view.value, target)]

    return Pending((name,), finish)
