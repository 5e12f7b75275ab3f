"""An int8 ONNX network (QDQ form) as its nodes, constants and shapes. Start with `read_graph`.

In this form a convolution stands in float32 between a `DequantizeLinear` of each input and a `QuantizeLinear` of its
output; what is meant is the integer arithmetic between the int8 tensors on either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import CompileError

if TYPE_CHECKING:
    import onnx

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_INT8 = "quantise the network first: edgeprune.exporting.quantise, or a matrix with the runtime fpga does it"


@dataclass(frozen=True)
class Quanta:
    """What an int8 value means: `scale * (value - zero)`."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Constant:
    """A constant of the network in integers: `scale * values`, the scale for all or for each index of an axis."""

    values: NDArray[Any]
    scale: NDArray[np.float64]
    axis: int


class Graph:
    """The nodes of a network in order, and what is known of its tensors by name."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        from onnx import numpy_helper, shape_inference

        self.model = model
        self.name = name
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.described = {one.name: one for one in (*inferred.input, *inferred.value_info, *inferred.output)}
        self.inputs = [one.name for one in model.graph.input if one.name not in self.constants]
        self.outputs = [one.name for one in model.graph.output]

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes a tensor."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read a tensor."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of a tensor; () where it is not known."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        if name not in self.described:
            return ()
        return tuple(axis.dim_value for axis in self.described[name].type.tensor_type.shape.dim)

    def quanta(self, node: onnx.NodeProto) -> Quanta | None:
        """Scale and zero point of a (de)quantisation to or from int8 for a whole tensor; None if it is another."""
        scale = self.constants.get(node.input[1])
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        if scale is None or scale.size != 1 or zero is None or zero.dtype != np.int8:
            return None
        return Quanta(float(scale.reshape(())), int(zero.reshape(())))

    def constant(self, name: str) -> Constant | None:
        """The integers behind a dequantised constant of zero point 0; None if it is no such."""
        node = self.producers.get(name)
        if node is None or node.op_type != DEQUANTISE or node.input[0] not in self.constants:
            return None
        scale = self.constants.get(node.input[1])
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        if scale is None or zero is None or zero.any():
            return None
        return Constant(self.constants[node.input[0]], scale.astype(np.float64), int(attributes(node).get("axis", 1)))

    def integers(self, name: str) -> list[int] | None:
        """A constant of indices or axes as a list; None if it is computed."""
        found = self.constants.get(name)
        return None if found is None or found.dtype.kind != "i" else [int(one) for one in found.reshape(-1)]

    def macs(self, node: onnx.NodeProto) -> int:
        """Multiply-adds of a convolution or matrix multiplication; 0 for all else."""
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return 0
        weights, out = self.shape(node.input[1]), self.shape(node.output[0])
        if node.op_type == "Conv":
            return math.prod(out) * math.prod(weights[1:])
        if node.op_type == "ConvTranspose":
            return math.prod(self.shape(node.input[0])) * math.prod(weights[1:])
        if node.op_type == "Gemm":
            return math.prod(out) * weights[1 if attributes(node).get("transB") else 0]
        return math.prod(out) * self.shape(node.input[0])[-1]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def read_graph(path: Path) -> Graph:
    """Read an int8 ONNX file.

    Raises:
        CompileError: it is no ONNX file, is not quantised to int8, or takes more than one image at a time.
    """
    import onnx

    try:
        graph = Graph(onnx.load(str(path)), path.name)
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise CompileError(f"{path} is no valid ONNX file", hint="export it again", detail=str(error)) from error
    if not any(node.op_type == QUANTISE and graph.quanta(node) for node in graph.nodes):
        raise CompileError(f"{path} is not an int8 network: nothing in it is quantised to int8", hint=_INT8)
    if len(graph.inputs) != 1 or graph.shape(graph.inputs[0])[:1] != (1,):
        shapes = ", ".join(str(list(graph.shape(name))) for name in graph.inputs)
        raise CompileError(f"{path} takes {shapes}; the core works on one image at a time", hint="export with batch 1")
    return graph
