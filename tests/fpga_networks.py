"""Small networks for the accelerator's compiler, their int8 form, and what numpy makes of their commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import pack, unpack
from edgeprune.compiling.fpga.meaning import execute
from edgeprune.compiling.fpga.network import Compiled, Region, compile_network
from edgeprune.compiling.fpga.qdq import read_graph
from edgeprune.exporting import quantise

OPSET = 20


class Net:
    """An ONNX graph, node after node; each method gives the name of its result."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **fields: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{len(self.nodes)}", **fields))
        return name

    def conv(self, x: str, out: int, into: int, kernel: int = 3, **fields: Any) -> str:
        weights = self.rng.normal(size=(out, into, kernel, kernel), scale=(into * kernel**2) ** -0.5)
        bias = self.rng.normal(size=out).astype(np.float32)
        fields = {"pads": [kernel // 2] * 4, **fields}
        return self.node(
            "Conv",
            x,
            self.constant(weights.astype(np.float32)),
            self.constant(bias),
            kernel_shape=[kernel] * 2,
            **fields,
        )

    def indices(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def picked(self, x: str, *channels: int, after: int = 1) -> str:
        """Channels of a tensor with `after` channels of zeros behind its own."""
        padded = self.node("Pad", x, self.indices(0, 0, 0, 0, 0, after, 0, 0))
        return self.node("Gather", padded, self.indices(*channels), axis=1)

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def int8(folder: Path, net: Net, output: str) -> Path:
    """A network's int8 file, calibrated with noise."""
    onnx.save(net.model(output), folder / "float.onnx")
    images = np.random.default_rng(1).normal(size=(16, *net.shape[1:])).astype(np.float32)
    return quantise(folder / "float.onnx", images, folder / "int8.onnx")


def compiled(path: Path, core: Core) -> Compiled:
    return compile_network(read_graph(path), core)


Execute = Callable[[Core, Region, np.ndarray], np.ndarray]


def by_meaning(core: Core, region: Region, memory: np.ndarray) -> np.ndarray:
    return execute(core, region.program.commands, memory)


def answer(network: Compiled, image: np.ndarray, on: Execute = by_meaning) -> np.ndarray:
    """What a compiled network gives for an image: its host parts by ONNX Runtime, its commands by `on`."""
    known = {"input": image}
    for step in network.steps:
        if isinstance(step, Region):
            known |= _region(network.core, step, known, on)
        else:
            session = onnxruntime.InferenceSession(step.model.SerializeToString(), providers=["CPUExecutionProvider"])
            made = session.run(list(step.outputs), {name: known[name] for name in step.inputs})
            known |= dict(zip(step.outputs, made, strict=True))
    return known[step.outputs[0]]


def _region(core: Core, region: Region, known: dict[str, np.ndarray], on: Execute) -> dict[str, np.ndarray]:
    memory = np.full(region.weights_at + region.weights.size, 85, np.int8)
    memory[region.weights_at :] = region.weights
    for port in region.inputs:
        value = port.value
        picture = known[value.name].reshape(value.channels, value.rows, value.columns)
        words = pack(picture if port.fold is None else port.fold.apply(picture), core.n).reshape(-1)
        memory[port.address : port.address + words.size] = words
    after = on(core, region, memory)
    found = {}
    for port in region.outputs:
        value = port.value
        shape = (core.planes(value.channels), value.rows, value.columns, core.n)
        words = after[port.address : port.address + int(np.prod(shape))].reshape(shape)
        found[value.name] = unpack(words, value.channels).reshape((1, -1) if value.rank == 2 else (1, *shape_of(value)))
    return found


def shape_of(value: Any) -> tuple[int, int, int]:
    return value.channels, value.rows, value.columns


def by_onnxruntime(path: Path, image: np.ndarray) -> np.ndarray:
    """The oracle: the same int8 file, as it is written, nothing fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image})[0]
