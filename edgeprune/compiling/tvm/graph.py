"""An ONNX file as a plain graph: nodes in order, numpy constants, static shapes.

Everything behind this file works on `Graph`, never on protobuf. `read_graph` checks what the schedules rely on (one
float32 input of a static shape, weights inside the file) and folds nodes whose inputs are all constant. Rewrites that
need nothing but arrays are in `rewrite.py`; the way into TVM is `lower.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference

from edgeprune.errors import CompileError

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT = onnx.TensorProto.FLOAT
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
MOST_BYTES = 2**31 - 1
"""Largest network that is compiled: machine code reaches its constants by 32-bit distances."""


@dataclass(frozen=True)
class Node:
    """One ONNX operator: its type, its name in the file, the values it reads and makes, its attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} node {self.name!r}"


@dataclass(frozen=True)
class Graph:
    """A network: `nodes` in an order in which they can run, `constants` and `shapes` by value name."""

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int

    def uses(self) -> Counter[str]:
        """How often each value is read, by nodes and as a result of the network."""
        return Counter([*self.outputs, *(name for node in self.nodes for name in node.inputs if name)])

    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs}


def read_graph(path: Path) -> Graph:
    """Read and check an ONNX file.

    Raises:
        CompileError: unreadable file, missing weights, a shape that is not static, or a type that is not float32.
    """
    model = _load(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    constants = {tensor.name: _array(tensor, path) for tensor in model.graph.initializer}
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    shapes = _shapes(model, path)
    _refuse_halves(model, path)
    nodes = tuple(_node(index, proto) for index, proto in enumerate(model.graph.node))
    outputs = tuple(value.name for value in model.graph.output)
    return fold_constants(Graph(nodes, constants, shapes, inputs, outputs, opset))


def _load(path: Path) -> onnx.ModelProto:
    try:
        _require_whole(path)
        model = onnx.load(str(path), load_external_data=True)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)
    except CompileError:
        raise
    except (OSError, ValueError, RuntimeError, TypeError) as error:  # onnx's own errors are of these kinds
        raise CompileError(f"{path}: not a readable ONNX file", hint="export it again", detail=str(error)) from error
    except Exception as error:
        if not type(error).__module__.startswith(("onnx", "google")):
            raise
        raise CompileError(f"{path}: not a valid ONNX file", hint="export it again", detail=str(error)) from error


def _require_whole(path: Path) -> None:
    """Refuse a network whose weights are not all there, or are too many, before they are read."""
    bare = onnx.load(str(path), load_external_data=False)
    entries = [entry for tensor in bare.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    others = {path.parent / entry.value for entry in entries}
    missing = sorted(other.name for other in others if not other.is_file())
    if missing:
        raise CompileError(
            f"{path}: a file of the network is missing: {missing[0]}",
            hint="give the .onnx file together with its external weights, or export with the weights inside",
        )
    size = sum(file.stat().st_size for file in (path, *others))
    if size > MOST_BYTES:
        raise CompileError(
            f"{path}: the network has {size / 1e9:.1f} GB, at most {MOST_BYTES / 1e9:.1f} GB are compiled",
            hint="compiled code reaches its weights within 2 GiB; use the runtime onnxruntime for this network",
        )


def _array(tensor: onnx.TensorProto, path: Path) -> Array:
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind in "fV" and array.dtype != np.float32:  # V: bfloat16 and narrower
        raise CompileError(
            f"{path}: weight {tensor.name!r} is {array.dtype}, only float32 is compiled",
            hint="export the network in float32",
        )
    return np.asarray(array)


def _shapes(model: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """The static shapes of all values; inputs must have one."""
    shapes = {}
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        dims = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if all(dim > 0 for dim in dims):
            shapes[value.name] = dims
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if kind != FLOAT:
            name = onnx.TensorProto.DataType.Name(kind)
            raise CompileError(
                f"{path}: input {value.name!r} is {name}, only float32 inputs are compiled",
                hint="export the network with a float32 input",
            )
        if not shapes.get(value.name):
            given = [dim.dim_param or dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim]
            raise CompileError(
                f"{path}: input {value.name!r} has no static shape: {given}",
                hint="export with a fixed batch and image size",
            )
    return shapes


def _refuse_halves(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what is computed in 16 bit: compilers drop its rounding, so numbers would not be those of the network."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    for index, node in enumerate(model.graph.node):
        for kind in {kinds.get(name) for name in node.output} & set(_HALVES):
            raise CompileError(
                f"{path}: the {_node(index, node)} gives {onnx.TensorProto.DataType.Name(kind)}, which is not compiled",
                hint="export the network in float32",
            )


def _node(index: int, proto: onnx.NodeProto) -> Node:
    attrs = {attribute.name: _plain(onnx.helper.get_attribute_value(attribute)) for attribute in proto.attribute}
    return Node(proto.op_type, proto.name or f"#{index}", tuple(proto.input), tuple(proto.output), attrs)


def _plain(value: Any) -> Any:
    """An attribute as Python and numpy values."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return list(value) if not isinstance(value, str) and isinstance(value, Iterable) else value


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes that read constants only by their result, computed by ONNX's reference implementation."""
    constants, kept = dict(graph.constants), []
    for node in graph.nodes:
        if node.op not in ("Loop", "If", "Scan") and all(name in constants for name in node.inputs if name):
            results = _evaluate(node, constants, graph.opset)
        else:
            results = None
        if results is None:
            kept.append(node)
        else:
            constants.update(zip(node.outputs, results, strict=True))
    return replace(graph, nodes=tuple(kept), constants=constants)


def _evaluate(node: Node, constants: dict[str, Array], opset: int) -> list[Array] | None:
    """A node's results, or None if the reference implementation does not have the operator."""
    names = [name for name in node.inputs if name]
    attrs = {k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in node.attrs.items()}
    proto = onnx.helper.make_node(node.op, list(node.inputs), list(node.outputs), **attrs)
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(constants[name].dtype), constants[name].shape
        )
        for name in dict.fromkeys(names)
    ]
    results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.outputs]
    body = onnx.helper.make_graph([proto], "constant", infos, results)
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        values = onnx.reference.ReferenceEvaluator(model).run(None, {name: constants[name] for name in names})
    except Exception as error:  # of any kind, whatever does not fit
        if "No implementation" in str(error):
            return None
        raise CompileError(
            f"the {node} cannot be computed from its constants: {type(error).__name__}",
            hint="check the network with onnx.checker, and export it again",
            detail=str(error),
        ) from error
    return [np.asarray(value) for value in values]


def drop_unused(graph: Graph) -> Graph:
    """Leave out nodes and constants that no result of the network depends on."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: value for name, value in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)


def clip_bounds(node: Node, constants: dict[str, Array]) -> tuple[float | None, float | None] | None:
    """The lower and upper bound of a Clip, None for no bound; or None if they are not constant."""
    given = [constants.get(name) if name else None for name in node.inputs[1:]]
    if any(bound is None and name for bound, name in zip(given, node.inputs[1:], strict=True)):
        return None
    low, high = (*(None if bound is None else float(bound) for bound in given), None, None)[:2]
    return node.attrs.get("min") if low is None else low, node.attrs.get("max") if high is None else high
