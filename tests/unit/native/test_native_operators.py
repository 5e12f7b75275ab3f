"""Operators of decoders and of grouped networks as static programs, under emulation: the numbers of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeprune import compiling, emulation
from tests.unit.native.emulators import emulator
from tests.unit.onnx_nets import Net, reference

TOLERANCE = 1e-5


def groups(net: Net) -> str:
    """Groups that fill a vector, that a vector holds two of, that are filled up, and that have one channel each."""
    x = net.add("Relu", net.conv(net.conv("x", 3, 24, 1), 24, 24, 3, group=6, pads=[1, 1, 1, 1]))
    x = net.conv(net.conv(x, 24, 16, 3, group=8, pads=[1, 1, 1, 1]), 16, 12, 1, group=4)
    return net.conv(net.add("Relu", x), 12, 24, 3, group=12)


def decoder(net: Net) -> str:
    x = net.add("ConvTranspose", net.conv("x", 3, 9, 1), net.weight(9, 13, 3, 3, scale=0.2), strides=[2, 2])
    x = net.add("ConvTranspose", net.add("Tanh", x), net.weight(13, 8, 2, 2, scale=0.2), strides=[2, 2])
    scales = net.constant(np.array([1, 1, 1.5, 2], np.float32))
    x = net.add("Resize", net.add("Sigmoid", x), "", scales, mode="linear")
    return net.add("Softmax", x, axis=1)


@pytest.mark.parametrize("target", ["rpi4", "rpi2"])
@pytest.mark.parametrize("make", [groups, decoder], ids=lambda make: make.__name__)
def test_operators_under_emulation(make: Callable[[Net], str], target: str, tmp_path: Path) -> None:
    net = Net((1, 3, 7, 6))
    path, image = net.save(tmp_path / "net.onnx", make(net)), net.image()
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native", target=target)
    image.tofile(tmp_path / "in.bin")
    words = ["check", "--input", str(tmp_path / "in.bin"), "--output", str(tmp_path / "out.bin")]
    emulation.run_program(artifact.model, emulator(target), words)
    want, got = reference(path, image).ravel(), np.fromfile(tmp_path / "out.bin", np.float32)
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
