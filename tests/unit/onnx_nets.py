"""Small ONNX networks written node by node, with ONNX Runtime as the oracle of what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edgeprune.compiling import target

OPSET = 20


class Net:
    """A network under construction: `add` appends a node and gives the name of its output."""

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        self.shape, self.random = tuple(shape), np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        """A random float32 constant."""
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, values: Any) -> str:
        """A constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Append a node."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op.lower()}_{len(self.nodes)}", **attrs))
        return name

    def conv(self, x: str, channels_in: int, channels: int, kernel: int, bias: bool = True, **attrs: Any) -> str:
        """Append a convolution with random weights of about unit gain."""
        group = attrs.get("group", 1)
        fan = channels_in // group * kernel * kernel
        inputs = [x, self.weight(channels, channels_in // group, kernel, kernel, scale=fan**-0.5)]
        if bias:
            inputs.append(self.weight(channels, scale=0.3))
        return self.add("Conv", *inputs, **attrs)

    def gather(self, x: str, channels: Sequence[int], zero_after: int | None = None) -> str:
        """Append a gather of channels; `zero_after` appends a channel of zeros with that number first."""
        if zero_after is not None:
            x = self.add("Pad", x, self.constant(np.array([0, 0, 0, 0, 0, 1, 0, 0])), self.constant(np.float32(0)))
        return self.add("Gather", x, self.constant(np.array(channels)), axis=1)

    def split(self, x: str, widths: Sequence[int]) -> list[str]:
        """Append a split of channels into parts of these widths."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(len(widths))]
        inputs = [x, self.constant(np.array(widths))]
        self.nodes.append(helper.make_node("Split", inputs, names, name=f"split_{len(self.nodes)}", axis=1))
        return names

    def save(self, path: Path, output: str, input_type: int = onnx.TensorProto.FLOAT, opset: int = OPSET) -> Path:
        """Write the network whose result is `output`."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", input_type, self.shape)],
            [helper.make_empty_tensor_value_info(output)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model)
        kinds = {value.name: value for value in [*inferred.graph.output, *inferred.graph.value_info]}
        model.graph.output[0].CopyFrom(kinds[output])
        if not kinds[output].type.HasField("tensor_type"):
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
        onnx.save(model, str(path))
        return path

    def image(self) -> np.ndarray:
        """A random input."""
        return self.random.standard_normal(self.shape).astype(np.float32)


def reference(path: Path, image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes, without its own graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def narrow_target(folder: Path, bits: int) -> str:
    """A target's file: this machine with vectors of so many bits and 16 registers."""
    host = target("host")
    path = folder / "narrow.yaml"
    path.write_text(
        f"triple: {host.triple}\nfeatures: {list(host.features)}\nvector_bits: {bits}\nvector_registers: 16\n"
    )
    return str(path)
