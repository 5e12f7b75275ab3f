"""Activations and softmax that TVM compiles must equal ONNX Runtime; exponentials over all of their range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.compiling import compile_onnx
from tests.unit.onnx_nets import Net, reference
from tests.unit.test_compiling_tvm import check, run


@pytest.mark.parametrize(
    ("operator", "attrs"),
    [
        ("Abs", {}),
        ("Exp", {}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("HardSwish", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Neg", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
    ],
)
def test_activations(operator: str, attrs: dict[str, float], tmp_path: Path) -> None:
    net = Net((2, 3, 6, 5))
    check(net, net.conv(net.add(operator, net.conv("x", 3, 13, 1), **attrs), 13, 7, 1), tmp_path)


def test_slopes(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 5))
    check(net, net.add("PRelu", net.conv("x", 3, 13, 1), net.weight(13, 1, 1)), tmp_path)


@pytest.mark.parametrize("operator", ["Exp", "Sigmoid", "Tanh"])
def test_exponentials_are_right_to_the_last_digits(operator: str, tmp_path: Path) -> None:
    large, small = np.linspace(-85, 85, 4001), np.geomspace(1e-30, 1, 1000)
    image = np.concatenate([large, small, -small]).astype(np.float32).reshape(1, 1, 1, -1)
    net = Net(image.shape)
    path = net.save(tmp_path / "net.onnx", net.add(operator, "x"))
    got = run(compile_onnx(path, tmp_path / "out", runtime="tvm"), image).astype(np.float64)
    exact = {"Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x))}[operator]
    np.testing.assert_allclose(got, exact(image.astype(np.float64)), rtol=5e-7)


@pytest.mark.parametrize("channels", [1, 3, 7, 16, 21, 35])
def test_softmax_over_channels(channels: int, tmp_path: Path) -> None:
    net = Net((2, 3, 6, 5), seed=channels)
    check(net, net.add("Softmax", net.conv("x", 3, channels, 1), axis=1), tmp_path, threads=2)


def test_softmax_of_large_numbers(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 5))
    x = net.add("Mul", net.conv("x", 3, 9, 1), net.constant(np.float32(200)))
    path, image = net.save(tmp_path / "net.onnx", net.add("Softmax", x, axis=1)), net.image()
    got = run(compile_onnx(path, tmp_path / "out", runtime="tvm"), image)
    np.testing.assert_allclose(got, reference(path, image), atol=1e-4)  # exponents of 200 differ in the fifth digit


@pytest.mark.parametrize(("shape", "axis"), [([2, 9, 10], -1), ([2, 90], 1), ([90, 2], -1), ([2, 3, 3, 10], 3)])
def test_softmax_over_the_last_axis(shape: list[int], axis: int, tmp_path: Path) -> None:
    net = Net((2, 3, 6, 5))
    check(net, net.add("Softmax", net.add("Reshape", "x", net.constant(np.array(shape))), axis=axis), tmp_path)


@pytest.mark.parametrize("shape", [[2, 9, 10], [2, 90]])
def test_softmax_of_an_old_opset_is_over_all_axes_but_the_first(shape: list[int], tmp_path: Path) -> None:
    net = Net((2, 3, 6, 5))
    check(net, net.add("Softmax", net.add("Reshape", "x", net.constant(np.array(shape)))), tmp_path, opset=11)


def test_softmax_over_rows(tmp_path: Path) -> None:
    net = Net((2, 3, 6, 5))
    check(net, net.add("Softmax", net.conv("x", 3, 9, 1), axis=2), tmp_path)
