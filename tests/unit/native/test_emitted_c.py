"""Emitted C: a compiler of the user's own takes it without a warning, and its program equals ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeprune as ep
from edgeprune import compiling
from tests.unit.onnx_nets import Net, reference

TOLERANCE = 1e-4
STRICT = "-std=gnu11 -O0 -Wall -Wextra -Werror"


def check(path: Path, folder: Path) -> None:
    """Emit a network, build it with gcc, and compare what its program answers."""
    compiling.emit_c(path, folder / "c")
    made = subprocess.run(
        ["make", "-s", "-C", str(folder / "c"), "CC=gcc", f"CFLAGS={STRICT}"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[:3000]
    program = str(folder / "c" / "program")
    facts = subprocess.run([program, "facts"], check=True, capture_output=True, text=True).stdout
    image = np.random.default_rng(0).standard_normal(json.loads(facts)["inputs"][0]["shape"]).astype(np.float32)
    image.tofile(folder / "in.bin")
    words = [program, "check", "--input", str(folder / "in.bin"), "--output", str(folder / "out.bin")]
    subprocess.run(words, check=True, capture_output=True)
    want, got = reference(path, image).ravel(), np.fromfile(folder / "out.bin", np.float32)
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def test_a_shrunk_residual_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, image = ep.models.build("resnet20", num_classes=10).eval(), torch.randn(1, 3, 16, 16)
    shrunk = ep.shrink(ep.prune(model, image, method="random", ratio=0.5).apply(model), image).model
    ep.export_onnx(shrunk.eval(), image, tmp_path / "net.onnx")
    check(tmp_path / "net.onnx", tmp_path)


def gathered_sums(net: Net) -> str:
    left = net.gather(net.conv("x", 3, 14, 3, pads=[1, 1, 1, 1]), [14, *range(7), 14, *range(7, 14), 14], zero_after=14)
    right = net.gather(net.add("Relu", net.conv("x", 3, 9, 1)), [*range(9), *[9] * 8], zero_after=9)
    total = net.add("Clip", net.add("Add", left, right), net.constant(np.float32(-1)), net.constant(np.float32(1)))
    return net.add("Add", net.gather(total, [16, 3, 3, 0, -1]), net.conv("x", 3, 5, 1))


def inverted_residual(net: Net) -> str:
    wide = net.add("HardSwish", net.conv("x", 3, 13, 1))
    wide = net.add("HardSwish", net.conv(wide, 13, 13, 3, group=13, pads=[1, 1, 1, 1]))
    gate = net.add("HardSigmoid", net.conv(net.add("GlobalAveragePool", wide), 13, 13, 1))
    return net.add("Add", "x", net.conv(net.add("Mul", wide, gate), 13, 3, 1))


def dense_block(net: Net) -> str:
    x = net.add("Concat", "x", net.add("Relu", net.conv("x", 3, 5, 3, pads=[1, 1, 1, 1])), axis=1)
    x = net.add("Concat", x, net.add("Relu", net.conv(x, 8, 5, 3, pads=[1, 1, 1, 1])), axis=1)
    return net.add("AveragePool", net.conv(x, 13, 7, 1), kernel_shape=[2, 2], strides=[2, 2])


def resized(net: Net) -> str:
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    x = net.add(
        "Resize", net.conv("x", 3, 5, 3), "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    return net.add(
        "Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def attention(net: Net) -> str:
    """Maxima over what a row reads one after the other, which TVM's generator takes for one and the same."""
    x = net.add("Reshape", net.conv("x", 3, 9, 3), net.constant(np.array([1, 9, 100])))
    x = net.add("Softmax", net.add("MatMul", x, net.add("Transpose", x, perm=[0, 2, 1])), axis=-1)
    return net.add("LayerNormalization", x, net.weight(9), net.weight(9))


def groups_and_transposed(net: Net) -> str:
    x = net.add("Relu", net.conv(net.conv("x", 3, 20, 1), 20, 25, 3, group=5, pads=[1, 1, 1, 1]))
    x = net.add("ConvTranspose", x, net.weight(25, 9, 3, 3, scale=0.1), strides=[2, 2])
    return net.add("Softmax", net.add("Tanh", net.add("Sigmoid", x)), axis=1)


def largest_of_few_channels(net: Net) -> str:
    return net.add("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def activations(net: Net) -> str:
    x = net.add("Abs", net.add("Softplus", net.conv("x", 3, 5, 3)))
    return net.add("Softmax", net.add("Flatten", net.add("GlobalAveragePool", net.add("Gelu", x))), axis=1)


@pytest.mark.parametrize(
    "make",
    [
        gathered_sums,
        inverted_residual,
        dense_block,
        resized,
        attention,
        groups_and_transposed,
        largest_of_few_channels,
        activations,
    ],
    ids=lambda make: make.__name__,
)
def test_blocks(make: Callable[[Net], str], tmp_path: Path) -> None:
    net = Net((1, 3, 12, 12))
    check(net.save(tmp_path / "net.onnx", make(net)), tmp_path)
