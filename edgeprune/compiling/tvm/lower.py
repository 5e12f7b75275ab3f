"""From a `Graph` to one Relax function on stored tensors, node by node.

`lower` walks the nodes; `ops.py` has a rule for each operator that is computed in the stored form. An operator without
a rule goes to TVM's own ONNX converter on tensors in ONNX's order: right, but not fast. An operator that neither knows
ends in a CompileError that names the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper
import tvm
from tvm import relax, te, tirx
from tvm.relax.frontend.onnx import onnx_frontend

from edgeprune.compiling.tvm.graph import Array, Graph, Node
from edgeprune.compiling.tvm.layout import Stored, stored_channels
from edgeprune.compiling.tvm.tile import Factor
from edgeprune.compiling.tvm.winograd_choice import Machine
from edgeprune.errors import CompileError

Value: TypeAlias = "Stored | relax.Expr"


@dataclass
class Lowering:
    """What the rules work with: where to emit, the values so far, and the target's registers and multiply-adds."""

    builder: relax.BlockBuilder
    graph: Graph
    machine: Machine
    factor: Factor
    inputs: list[relax.Var]
    values: dict[str, Value] = field(default_factory=dict)
    unstored: dict[str, relax.Expr] = field(default_factory=dict)

    @property
    def lanes(self) -> int:
        """float32 lanes of the target's vector."""
        return self.machine.lanes

    @property
    def registers(self) -> int:
        """The target's vector registers."""
        return self.machine.registers

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return self.graph.producers()

    def constant(self, name: str) -> Array | None:
        """The constant of that name, or None."""
        return self.graph.constants.get(name)

    def plain(self, name: str) -> relax.Expr:
        """A value in ONNX's order of dimensions."""
        constant = self.constant(name)
        if constant is not None:
            return relax.const(constant)
        value = self.values[name]
        if isinstance(value, Stored):
            if name not in self.unstored:
                self.unstored[name] = self._unstore(value)
            return self.unstored[name]
        return value

    def stored(self, name: str) -> Stored:
        """A value in stored form; it must have 2 or 4 dimensions (see `can_store`)."""
        value = self.values[name]
        if not isinstance(value, Stored):
            value = self.values[name] = self._store(value)
        return value

    def can_store(self, name: str) -> bool:
        """Whether a value is no constant and has, or can be brought into, stored form."""
        value = self.values.get(name)
        if value is None or isinstance(value, Stored):
            return value is not None
        return isinstance(value.ty, relax.TensorType) and value.ty.ndim in (2, 4) and value.ty.dtype == "float32"

    def emit(self, compute: Callable[..., te.Tensor], *args: relax.Expr, hint: str, pattern: int) -> relax.Expr:
        """Emit a kernel; `pattern` is TVM's operator pattern, which decides about fusion."""
        return self.builder.emit_te(compute, *args, primfunc_name_hint=hint, primfunc_attrs={"op_pattern": pattern})

    def _store(self, value: relax.Expr) -> Stored:
        shape = [int(extent) for extent in value.ty.shape]
        if len(shape) == 2:
            return Stored(self.builder.emit(relax.op.reshape(value, (1, 1, *shape))), shape[1], 2)
        channels, stored = shape[1], stored_channels(shape[1], self.lanes)
        if any(value.same_as(variable) for variable in self.inputs):
            stored = channels  # a network's input has few channels; the first convolution reads them one by one

        def compute(x: te.Tensor) -> te.Tensor:
            def pixel(n: Any, h: Any, w: Any, c: Any) -> Any:
                if stored == channels:
                    return x[n, c, h, w]
                return tirx.if_then_else(c < channels, x[n, c, h, w], tirx.const(0, "float32"))

            return te.compute((shape[0], shape[2], shape[3], stored), pixel, name="store")

        return Stored(self.emit(compute, value, hint="store", pattern=INJECTIVE), channels, 4)

    def _unstore(self, value: Stored) -> relax.Expr:
        n, h, w, _ = value.shape
        shape = (n, value.channels, h, w) if value.rank == 4 else (w, value.channels)

        def compute(x: te.Tensor) -> te.Tensor:
            if value.rank == 4:
                return te.compute(shape, lambda n, c, h, w: x[n, h, w, c], name="unstore")
            return te.compute(shape, lambda m, c: x[0, 0, m, c], name="unstore")

        return self.emit(compute, value.value, hint="unstore", pattern=INJECTIVE)


Rule: TypeAlias = "Callable[[Lowering, Node], Value | None]"
ELEMENTWISE, BROADCAST, INJECTIVE = 0, 1, 2  # TVM's operator patterns


def lower(graph: Graph, rules: dict[str, Rule], machine: Machine, factor: Factor) -> tvm.IRModule:
    """One Relax function `main` that computes the network.

    Args:
        graph: The network, rewritten.
        rules: The rule of each operator type; a rule may give None to leave the node to TVM's converter.
        machine: What it is computed on.
        factor: How the target multiplies vectors.

    Raises:
        CompileError: an operator is not supported.
    """
    _check_operators(graph, rules)
    builder = relax.BlockBuilder()
    types = [relax.TensorType(graph.shapes[name], "float32") for name in graph.inputs]
    inputs = [relax.Var(f"input_{i}", kind) for i, kind in enumerate(types)]
    values: dict[str, Value] = dict(zip(graph.inputs, inputs, strict=True))
    lowering = Lowering(builder, graph, machine, factor, inputs, values)
    with builder.function("main", inputs):
        with builder.dataflow():
            for node in graph.nodes:
                _lower_node(lowering, rules, node)
            results = [lowering.plain(name) for name in graph.outputs]
            result = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(result)
    return builder.get()


def _check_operators(graph: Graph, rules: dict[str, Rule]) -> None:
    """Refuse operators that neither a rule nor TVM's converter knows."""
    known = {*rules, *onnx_frontend._get_convert_map()}
    for node in graph.nodes:
        if node.op not in known:
            raise CompileError(
                f"tvm does not know the operator {node.op} (node {node.name!r})",
                hint="use the runtime onnxruntime for this network, or replace the operator in the model",
            )


def _lower_node(lowering: Lowering, rules: dict[str, Rule], node: Node) -> None:
    try:
        rule = rules.get(node.op)
        value = rule(lowering, node) if rule else None
        if value is not None:
            lowering.values[node.outputs[0]] = value
        else:
            _convert(lowering, node)
        _require_static(lowering, node)
    except CompileError:
        raise
    except Exception as error:  # TVM raises errors of any kind; each is told with its node
        raise CompileError(
            f"tvm cannot compile the {node}: {type(error).__name__}",
            hint="use the runtime onnxruntime for this network, or replace the operator in the model",
            detail=str(error),
        ) from error


def _require_static(lowering: Lowering, node: Node) -> None:
    for value in (lowering.values[name] for name in node.outputs):
        kind = None if isinstance(value, Stored) else value.ty
        extents = kind.shape if isinstance(kind, relax.TensorType) else ()
        if extents is None or not all(isinstance(extent, tirx.IntImm) for extent in extents):
            raise CompileError(
                f"the shape of what the {node} gives is not known before it runs",
                hint="use the runtime onnxruntime for this network, or replace the operator in the model",
            )


def _convert(lowering: Lowering, node: Node) -> None:
    """Leave a node to TVM's own ONNX converter."""
    inputs = onnx_frontend.onnx_input()
    inputs.extend(lowering.plain(name) if name else None for name in node.inputs)
    attrs = {name: _as_in_protobuf(value) for name, value in node.attrs.items()}
    attrs = {**attrs, "tvm_custom": {"name": node.name, "num_outputs": len(node.outputs)}}
    convert = onnx_frontend._get_convert_map()[node.op].get_converter(lowering.graph.opset)
    result = lowering.builder.normalize(convert(lowering.builder, inputs, attrs, [{}, {}]))
    several = isinstance(result.ty, relax.TupleType)  # also where the node leaves out all results but the first
    parts = [relax.TupleGetItem(result, i) for i in range(len(node.outputs))] if several else [result]
    for name, part in zip(node.outputs, parts, strict=True):
        lowering.values[name] = lowering.builder.emit(part)


def _as_in_protobuf(value: Any) -> Any:
    """An attribute in the form that TVM's converters read."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, np.ndarray):
        return onnx.numpy_helper.from_array(value)
    return tuple(value) if isinstance(value, list) else value
