"""Networks of every operator, compiled for the accelerator: at most one quantum from ONNX Runtime, nothing left out.

The commands are carried out by numpy here; that the hardware does the same is tests/integration/test_fpga_core.py's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeprune.compiling.fpga.commands import Compute
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.network import Region
from edgeprune.compiling.fpga.qdq import read_graph
from edgeprune.errors import CompileError
from tests.fpga_networks import Net, answer, by_onnxruntime, compiled, int8

CORES = (Core(8), Core(16), Core(8, a_words=256, r_words=256))


def plain(net: Net) -> str:
    return net.node("Relu", net.conv("input", 13, 5))


def strided(net: Net) -> str:
    return net.conv(net.conv("input", 20, 5, 5, strides=[2, 2]), 9, 20, 1, strides=[2, 1], pads=[0, 0, 0, 0])


def dilated(net: Net) -> str:
    return net.conv("input", 6, 5, 3, dilations=[2, 2], pads=[2, 1, 2, 3])


def depthwise(net: Net) -> str:
    wide = net.node("Clip", net.conv("input", 19, 5, 1), net.constant(np.float32(0)), net.constant(np.float32(1.5)))
    return net.conv(net.conv(wide, 19, 1, group=19), 7, 19, 1)


def grouped(net: Net) -> str:
    return net.conv(net.conv("input", 12, 5), 24, 3, group=4)


def pooled(net: Net) -> str:
    pooled = net.node("MaxPool", net.conv("input", 10, 5), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    averaged = net.node("AveragePool", pooled, kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    return net.node("GlobalAveragePool", averaged)


def mean_and_linear(net: Net) -> str:
    mean = net.node("ReduceMean", net.conv("input", 30, 5), net.indices(2, 3), keepdims=0)
    weights = net.constant(net.rng.normal(size=(11, 30)).astype(np.float32))
    return net.node("Gemm", mean, weights, net.constant(net.rng.normal(size=11).astype(np.float32)), transB=1)


def flat_and_linear(net: Net) -> str:
    small = net.node("MaxPool", net.conv("input", 6, 5), kernel_shape=[3, 3], strides=[3, 3])
    flat = net.node("Reshape", small, net.indices(1, -1))
    hidden = net.node("Relu", net.node("MatMul", flat, net.constant(net.rng.normal(size=(96, 20)).astype(np.float32))))
    weights = net.constant(net.rng.normal(size=(20, 10)).astype(np.float32))
    return net.node("Gemm", hidden, weights, net.constant(np.ones(10, np.float32)))


def residual(net: Net) -> str:
    first = net.node("Relu", net.conv("input", 16, 5))
    branch = net.conv(net.node("Relu", net.conv(first, 16, 16)), 16, 16)
    joined = net.node("Relu", net.node("Add", branch, first))
    return net.node("Add", joined, net.conv(joined, 16, 16, 1))


def index_addition(net: Net) -> str:
    first = net.node("Relu", net.conv("input", 9, 5))
    branch = net.picked(net.conv(first, 6, 9), 0, 6, 1, 2, 6, 3, 4, 5, 6, 6, 6, 6)
    skip = net.picked(first, 9, 0, 1, 2, 3, 9, 9, 4, 5, 6, 7, 8)
    joined = net.node("Relu", net.node("Add", branch, skip))
    other = net.picked(net.conv(joined, 7, 12), *range(7), *[7] * 6)
    again = net.node("Relu", net.node("Add", net.picked(joined, *range(12), 12), other))
    return net.conv(net.node("Gather", again, net.indices(3, 0, 12, 7), axis=1), 5, 4)


def padded_shortcut(net: Net) -> str:
    first = net.node("Relu", net.conv("input", 8, 5))
    sliced = net.node(
        "Slice", first, net.indices(0, 0), net.indices(99, 99), net.indices(2, 3), net.indices(2, 2)
    )  # fmt: skip
    shortcut = net.node("Pad", sliced, net.indices(0, 4, 0, 0, 0, 5, 0, 0))
    return net.node("Relu", net.node("Add", net.conv(first, 17, 8, strides=[2, 2]), shortcut))


def concatenated(net: Net) -> str:
    first, second = net.node("Relu", net.conv("input", 10, 5)), net.conv("input", 7, 5, 1)
    both = net.node("Relu", net.node("Concat", first, second, first, axis=1))
    return net.conv(both, 6, 27, 1)


def upscaled_between(net: Net) -> str:
    """HardSwish is the host's."""
    hidden = net.node("HardSwish", net.conv("input", 12, 5))
    return net.node("Add", net.conv(hidden, 9, 12), net.conv(net.node("Sigmoid", hidden), 9, 12, 1))


def cropped(net: Net) -> str:
    """A picture without its first row and column is the host's to cut out."""
    rows_and_columns = net.indices(2, 3)
    part = net.node("Slice", net.conv("input", 6, 5), net.indices(1, 1), net.indices(99, 99), rows_and_columns)
    return net.conv(part, 4, 6)


def several_answers_of_the_host(net: Net) -> str:
    return net.node("Softmax", net.node("Flatten", net.node("Relu", net.conv("input", 4, 5)), axis=1), axis=1)


NETWORKS = {
    one.__name__: one
    for one in (
        plain, strided, dilated, depthwise, grouped, pooled, mean_and_linear, flat_and_linear, residual, index_addition,
        padded_shortcut, concatenated,
    )
}  # fmt: skip
WITH_HOST = {one.__name__: one for one in (upscaled_between, cropped, several_answers_of_the_host)}


@pytest.mark.parametrize("core", CORES, ids=["8", "16", "8, small"])
@pytest.mark.parametrize("name", [*NETWORKS, *WITH_HOST])
def test_a_network_gives_what_onnxruntime_gives(name: str, core: Core, tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    path = int8(tmp_path, net, (NETWORKS | WITH_HOST)[name](net))
    network = compiled(path, core)
    expected_answers = []
    for seed in range(3):
        image = np.random.default_rng(100 + seed).normal(size=(1, 5, 12, 12)).astype(np.float32)
        got, expected = answer(network, image), by_onnxruntime(path, image)
        layers = sum(len(step.layers) for step in network.steps if isinstance(step, Region))
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= quantum(path) * (1 if layers == 1 else 2) + 1e-6
        # the average of four is half a quantum every other time, which the core rounds up
        assert (got == expected).mean() > 0.9 or name == "pooled"
        expected_answers.append(expected)
    assert np.ptp(np.concatenate(expected_answers)) > 20 * quantum(path) or name == "several_answers_of_the_host"


def quantum(path: Path) -> float:
    """The step of the last int8 tensor."""
    graph = read_graph(path)
    last = [graph.quanta(node) for node in graph.nodes if node.op_type == "QuantizeLinear"][-1]
    assert last is not None
    return last.scale


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_left_to_the_host_but_quantisation(name: str, tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    network = compiled(int8(tmp_path, net, NETWORKS[name](net)), Core(8))
    assert network.host_nodes == ()
    assert network.host_macs == 0
    assert sum(isinstance(step, Region) for step in network.steps) == 1
    assert sum(one.operation.macs for step in network.steps if isinstance(step, Region) for one in step.layers) == (
        network.macs
    )


def test_what_the_core_cannot_do_is_named(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    network = compiled(int8(tmp_path, net, upscaled_between(net)), Core(8))
    assert {kind for _, kind in network.host_nodes} == {"HardSwish", "Sigmoid"}
    assert sum(isinstance(step, Region) for step in network.steps) == 2


def test_additions_cost_no_layer_of_their_own(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    network = compiled(int8(tmp_path, net, residual(net)), Core(8))
    kinds = [one.operation.kind for step in network.steps if isinstance(step, Region) for one in step.layers]
    assert kinds == ["Conv", "Conv", "Conv+Add", "Conv+Add"]


def test_tensors_stay_in_the_core_where_they_fit(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    path = int8(tmp_path, net, residual(net))
    big, small = compiled(path, Core(8)), compiled(path, Core(8, a_words=256, r_words=256))
    (large,), (tight,) = ([step for step in one.steps if isinstance(step, Region)] for one in (big, small))
    assert large.weights_at == 2 * 12 * 12 * 8  # the picture that comes, and where it was the answer: nothing else
    assert tight.weights_at > large.weights_at


def test_a_network_in_float32_is_refused(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    onnx.save(net.model(plain(net)), tmp_path / "float.onnx")
    with pytest.raises(CompileError, match="not an int8 network") as caught:
        read_graph(tmp_path / "float.onnx")
    assert "quantise" in str(caught.value.hint)


def test_several_images_at_a_time_are_refused(tmp_path: Path) -> None:
    net = Net(4, 5, 12, 12)
    with pytest.raises(CompileError, match="one image at a time"):
        read_graph(int8(tmp_path, net, plain(net)))


def test_a_network_without_anything_for_the_core_is_refused(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    path = int8(tmp_path, net, net.node("Sigmoid", net.node("Relu", "input")))
    with pytest.raises(CompileError, match=r"nothing of it can be computed|not an int8 network"):
        compiled(path, Core(8))


def test_a_picture_too_large_for_the_core_is_refused_by_name(tmp_path: Path) -> None:
    net = Net(1, 5, 4, 1200)
    path = int8(tmp_path, net, plain(net))
    with pytest.raises(CompileError, match=r"Conv_0 \+ Relu_1|Conv_0: a row of 1200 pixels"):
        compiled(path, Core(8))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(CompileError, match="no valid ONNX file"):
        read_graph(tmp_path / "broken.onnx")


def test_index_additions_copy_nothing_while_their_channels_fill_one_plane(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    path = int8(tmp_path, net, index_addition(net))
    narrow, wide = compiled(path, Core(8)), compiled(path, Core(16))
    kinds = [
        [one.operation.kind for step in network.steps if isinstance(step, Region) for one in step.layers]
        for network in (narrow, wide)
    ]
    assert kinds[0] == ["Conv", "Conv", "Add", "Conv", "Add", "Conv"]
    assert kinds[1] == ["Conv", "Conv+Add", "Conv+Add", "Conv"]


def test_weights_that_were_pruned_to_zero_are_read_as_others_are(tmp_path: Path) -> None:
    commands = []
    for share in (1.0, 0.0):
        net = Net(1, 5, 12, 12)
        hidden = net.conv("input", 32, 5)
        out = net.conv(hidden, 16, 32)
        weights = numpy_helper.to_array(net.constants[2]).copy()
        weights[:, :16] *= share
        weights[:, 16:] *= 1.0 if share else 0.5
        net.constants[2].CopyFrom(numpy_helper.from_array(weights, net.constants[2].name))
        (tmp_path / str(share)).mkdir()
        network = compiled(int8(tmp_path / str(share), net, out), Core(8))
        (region,) = [step for step in network.steps if isinstance(step, Region)]
        commands.append([one.passes for one in region.program.commands if isinstance(one, Compute)])
    assert commands[0] == commands[1]
