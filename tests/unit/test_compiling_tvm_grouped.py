"""Grouped convolutions that TVM compiles must equal ONNX Runtime, whatever the widths of their groups."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from edgeprune.compiling import compile_onnx
from tests.unit.onnx_nets import Net, narrow_target, reference
from tests.unit.test_compiling_tvm import TOLERANCE, check, run


def grouped(net: Net, groups: int, given: int, made: int, **attrs: object) -> str:
    """A grouped convolution of odd width between dense ones, and an activation."""
    x = net.conv("x", net.shape[1], groups * given, 1)
    x = net.conv(x, groups * given, groups * made, 3, group=groups, **attrs)
    return net.conv(net.add("Relu", x), groups * made, 5, 1)


@pytest.mark.parametrize("made", [1, 2, 3, 4, 5, 8, 13, 16, 20, 32])
def test_widths(made: int, tmp_path: Path) -> None:
    for given in (1, 3, 4, 8):
        net = Net((1, 3, 9, 10), seed=made)
        (tmp_path / str(given)).mkdir()
        check(net, grouped(net, 5, given, made, pads=[1, 1, 1, 1]), tmp_path / str(given))


@pytest.mark.parametrize("seed", range(8))
def test_random_windows(seed: int, tmp_path: Path) -> None:
    pick = random.Random(seed)
    groups, given, made = pick.randint(2, 9), pick.randint(1, 9), pick.randint(1, 20)
    net = Net((pick.choice([1, 2]), 4, pick.randint(7, 17), pick.randint(7, 17)), seed)
    window = {
        "pads": [pick.randint(0, 2) for _ in range(4)],
        "strides": [pick.choice([1, 2, 3]), pick.choice([1, 2])],
        "dilations": [pick.choice([1, 2])] * 2,
    }
    check(net, grouped(net, groups, given, made, **window), tmp_path, threads=pick.choice([1, 2]))


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize(("groups", "given", "made"), [(8, 4, 4), (3, 2, 2), (5, 3, 7)])
def test_narrower_vectors(bits: int, groups: int, given: int, made: int, tmp_path: Path) -> None:
    net = Net((1, 3, 8, 8))
    path, image = net.save(tmp_path / "net.onnx", grouped(net, groups, given, made)), net.image()
    want = reference(path, image)
    got = run(compile_onnx(path, tmp_path / "out", runtime="tvm", target=narrow_target(tmp_path, bits)), image)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def test_filled_up_groups_read_by_several(tmp_path: Path) -> None:
    net = Net((1, 6, 8, 8))
    x = net.conv("x", 6, 9, 3, group=3, pads=[1, 1, 1, 1])
    y = net.add("Add", net.add("Sigmoid", x), net.conv(x, 9, 9, 1, group=3))
    check(net, net.add("Clip", y, net.constant(np.float32(-1)), net.constant(np.float32(1))), tmp_path)


def test_each_channel_with_several_filters(tmp_path: Path) -> None:
    net = Net((1, 5, 8, 8))
    check(net, net.conv("x", 5, 15, 3, group=5, pads=[1, 1, 1, 1]), tmp_path)


def test_shuffled_and_split_channels(tmp_path: Path) -> None:
    net = Net((1, 6, 8, 8))
    both = net.add("Concat", net.conv("x", 6, 9, 1), net.add("Relu", net.conv("x", 6, 9, 3, pads=[1, 1, 1, 1])), axis=1)
    wide = net.add("Reshape", both, net.constant(np.array([1, 2, 9, 8, 8])))
    turned = net.add("Transpose", wide, perm=[0, 2, 1, 3, 4])
    shuffled = net.add("Reshape", turned, net.constant(np.array([1, 18, 8, 8])))
    left, right = net.split(shuffled, [7, 11])
    check(net, net.add("Concat", left, net.conv(right, 11, 11, 1), axis=1), tmp_path)


def test_a_transpose_that_moves_more_than_channels(tmp_path: Path) -> None:
    net = Net((1, 6, 8, 8))
    wide = net.add("Reshape", net.conv("x", 6, 6, 1), net.constant(np.array([1, 6, 4, 2, 8])))
    turned = net.add("Transpose", wide, perm=[0, 2, 1, 3, 4])
    check(net, net.add("Reshape", turned, net.constant(np.array([1, 6, 8, 8]))), tmp_path)
