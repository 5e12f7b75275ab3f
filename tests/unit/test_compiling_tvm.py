"""What TVM compiles must equal ONNX Runtime: odd channel counts, strides, borders, index-additions, threads."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from edgeprune.compiling import Artifact, compile_onnx
from tests.unit.onnx_nets import OPSET, Net, narrow_target, reference

TOLERANCE = 2e-6


def run(artifact: Artifact, image: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(artifact.model)), tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(image)).numpy())


def check(net: Net, output: str, folder: Path, threads: int = 1, opset: int = OPSET) -> None:
    path, image = net.save(folder / "net.onnx", output, opset=opset), net.image()
    want = reference(path, image)
    got = run(compile_onnx(path, folder / "out", runtime="tvm", threads=threads), image)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(np.abs(want).max(), 1e-3)


def test_a_pad_as_old_opsets_write_it(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 5))
    check(net, net.add("Pad", net.conv("x", 3, 5, 1), pads=[0, 0, 1, 2, 0, 0, 0, 1]), tmp_path, opset=9)


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 13, 16, 25, 27, 33, 49, 80])
def test_ragged_convolutions(channels: int, tmp_path: Path) -> None:
    net = Net((1, 3, 9, 11), seed=channels)
    x = net.conv("x", 3, channels, 3, pads=[1, 1, 1, 1])
    x = net.add("Relu", x)
    x = net.conv(x, channels, 7, 1)
    check(net, x, tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_random_windows(seed: int, tmp_path: Path) -> None:
    pick = random.Random(seed)
    batch, channels, out = pick.choice([1, 2]), pick.choice([1, 3, 6, 17]), pick.choice([2, 9, 20, 37])
    kernel = pick.choice([1, 2, 3, 5])
    net = Net((batch, channels, pick.randint(7, 19), pick.randint(7, 19)), seed)
    pads = [pick.randint(0, kernel // 2) for _ in range(4)]
    dilation = pick.choice([1, 1, 2]) if kernel <= 3 else 1
    strides = [pick.choice([1, 2, 3]), pick.choice([1, 2])]
    x = net.conv("x", channels, out, kernel, pick.random() < 0.5, pads=pads, strides=strides, dilations=[dilation] * 2)
    check(net, net.add(pick.choice(["Relu", "Sigmoid", "Tanh"]), x), tmp_path, threads=pick.choice([1, 2]))


def index_addition(net: Net, folded: bool) -> str:
    """Two operands that share some channels; `folded` says whether both come straight from a convolution."""
    left = net.gather(net.conv("x", 3, 5, 3, pads=[1, 1, 1, 1]), [0, 5, 1, 2, 5, 3, 4], zero_after=5)
    right = net.conv("x", 3, 4, 1)
    if not folded:
        right = net.add("Relu", right)
    return net.add("Relu", net.add("Add", left, net.gather(right, [4, 0, 1, 4, 2, 4, 3], zero_after=4)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("folded", [True, False])
def test_index_additions(folded: bool, threads: int, tmp_path: Path) -> None:
    net = Net((1, 3, 8, 8))
    x = index_addition(net, folded)
    check(net, net.conv(x, 7, 19, 3, pads=[1, 1, 1, 1], strides=[2, 2]), tmp_path, threads)


def test_gather_into_more_vectors_than_before(tmp_path: Path) -> None:
    net = Net((1, 3, 8, 8))
    narrow = net.conv("x", 3, 14, 3, pads=[1, 1, 1, 1])
    wide = net.gather(narrow, [14, *range(7), 14, 14, *range(7, 14), *[14] * 30, 3, 2], zero_after=14)
    check(net, net.add("Add", wide, net.conv("x", 3, 49, 1)), tmp_path)


def test_gather_that_selects_and_repeats(tmp_path: Path) -> None:
    net = Net((2, 20, 5, 5))
    check(net, net.add("Add", net.gather("x", [19, 3, 3, 0, -1]), net.conv("x", 20, 5, 1)), tmp_path)


def test_zero_padding_shortcut(tmp_path: Path) -> None:
    net = Net((1, 9, 8, 8))
    cut = net.add(
        "Slice",
        "x",
        *(net.constant(np.array(part)) for part in ([0, 0], [9999, 9999], [2, 3], [2, 2])),
    )
    wide = net.add("Pad", cut, net.constant(np.array([0, 4, 0, 0, 0, 5, 0, 0])), net.constant(np.float32(0)))
    main = net.conv("x", 9, 18, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    check(net, net.add("Relu", net.add("Add", main, wide)), tmp_path)


def lenet(net: Net) -> str:
    x = net.add("MaxPool", net.add("Relu", net.conv("x", 1, 11, 5)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("MaxPool", net.add("Relu", net.conv(x, 11, 27, 5)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Flatten", x)
    x = net.add("Relu", net.add("Gemm", x, net.weight(53, 432, scale=0.05), net.weight(53), transB=1))
    return net.add("Gemm", x, net.weight(53, 10, scale=0.1), net.weight(10), alpha=0.5, beta=2.0)


def resnet_head(net: Net) -> str:
    x = net.add("GlobalAveragePool", net.conv("x", 1, 25, 3))
    x = net.add("Reshape", x, net.constant(np.array([net.shape[0], 25])))
    return net.add("Softmax", net.add("MatMul", x, net.weight(25, 10)), axis=1)


def batch_norms(net: Net) -> str:
    def norm(x: str, channels: int) -> str:
        positive = net.constant(net.random.uniform(0.5, 1.5, channels).astype(np.float32))
        parts = [net.weight(channels) for _ in range(3)]
        return net.add("BatchNormalization", x, *parts, positive, epsilon=1e-3)

    x = net.add("Relu", norm(net.conv("x", 1, 13, 3, bias=False), 13))
    return net.add("Clip", norm(x, 13), net.constant(np.float32(-0.5)), net.constant(np.float32(6)))


def depthwise(net: Net) -> str:
    x = net.add("Relu", net.conv("x", 1, 21, 3, pads=[1, 1, 1, 1]))
    return net.conv(x, 21, 21, 3, group=21, pads=[1, 1, 1, 1], strides=[2, 2])


def grouped(net: Net) -> str:
    return net.conv(net.conv("x", 1, 12, 1), 12, 18, 3, group=3, pads=[1, 1, 1, 1])


def dense_block(net: Net) -> str:
    x = net.conv("x", 1, 5, 3, pads=[1, 1, 1, 1])
    both = net.add("Concat", net.add("Relu", x), net.conv(x, 5, 14, 1), axis=1)
    return net.add("Mul", net.add("Sub", both, net.constant(np.float32(0.5))), both)


def average_pools(net: Net) -> str:
    x = net.add("AveragePool", net.conv("x", 1, 6, 1), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net.add("MaxPool", x, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)
    return net.add("ReduceMean", x, net.constant(np.array([2, 3])), keepdims=0)


def squeeze_excite(net: Net) -> str:
    x = net.conv("x", 1, 10, 3)
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", x), 10, 10, 1))
    return net.add("Mul", x, gate)


def hard_activations(net: Net) -> str:
    return net.add("HardSwish", net.add("LeakyRelu", net.conv("x", 1, 9, 3), alpha=0.1))


def resized(net: Net) -> str:
    x = net.add("Relu", net.conv("x", 1, 5, 3, strides=[2, 2]))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    x = net.add(
        "Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    x = net.add("ConvTranspose", x, net.weight(5, 3, 2, 2), strides=[2, 2])
    return net.conv(x, 3, 8, 3)


def mean_of_everything(net: Net) -> str:
    return net.add("ReduceMean", net.conv("x", 1, 5, 3))


def mean_of_everything_without_axes(net: Net) -> str:
    return net.add("ReduceMean", net.conv("x", 1, 5, 3), net.constant(np.array([], np.int64)), keepdims=0)


def mean_of_nothing(net: Net) -> str:
    x = net.add("ReduceMean", net.conv("x", 1, 5, 3), net.constant(np.array([], np.int64)), noop_with_empty_axes=1)
    return net.conv(x, 5, 3, 3)


def slice_of_the_first_axes(net: Net) -> str:
    parts = [net.constant(np.array(part)) for part in ([0, 1, 2, 3], [9, 4, 9999, -1])]
    return net.add("Slice", net.conv("x", 1, 5, 3), *parts)


def slice_of_the_first_axes_in_steps(net: Net) -> str:
    starts, ends, steps = (net.constant(np.array(part)) for part in ([0, 1], [9, 9], [2, 3]))
    return net.add("Slice", net.conv("x", 1, 5, 3), starts, ends, "", steps)


def slice_without_steps(net: Net) -> str:
    starts, ends, axes = (net.constant(np.array(part)) for part in ([2, 3], [9999, -1], [3, -2]))
    return net.conv(net.add("Slice", net.conv("x", 1, 5, 3), starts, ends, axes), 5, 3, 3)


def constants_first(net: Net) -> str:
    x = net.add("Sub", net.weight(7, 1, 1), net.conv("x", 1, 7, 3))
    return net.add("Add", net.add("Identity", x), net.add("Mul", net.weight(1), net.weight(7, 1, 1)))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lenet,
        resnet_head,
        batch_norms,
        depthwise,
        grouped,
        dense_block,
        average_pools,
        squeeze_excite,
        hard_activations,
        resized,
        mean_of_everything,
        mean_of_everything_without_axes,
        mean_of_nothing,
        slice_of_the_first_axes,
        slice_of_the_first_axes_in_steps,
        slice_without_steps,
        constants_first,
    ],
    ids=lambda make: make.__name__,
)
def test_operators(make: Callable[[Net], str], batch: int, tmp_path: Path) -> None:
    net = Net((batch, 1, 28, 28), seed=batch)
    check(net, make(net), tmp_path, threads=batch)


@pytest.mark.parametrize("bits", [128, 256])
def test_narrower_vectors(bits: int, tmp_path: Path) -> None:
    net = Net((1, 3, 12, 12))
    path, image = net.save(tmp_path / "net.onnx", net.conv(index_addition(net, False), 7, 27, 3)), net.image()
    want = reference(path, image)
    got = run(compile_onnx(path, tmp_path / "out", runtime="tvm", target=narrow_target(tmp_path, bits)), image)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def test_equal_input_gives_equal_library(tmp_path: Path) -> None:
    net = Net((1, 3, 8, 8))
    path = net.save(tmp_path / "net.onnx", index_addition(net, False))
    first, second = (compile_onnx(path, tmp_path / name, runtime="tvm").model for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
