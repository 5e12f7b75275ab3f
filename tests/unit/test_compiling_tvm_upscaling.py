"""Resize and transposed convolutions that TVM compiles must equal ONNX Runtime."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.unit.onnx_nets import Net
from tests.unit.test_compiling_tvm import check

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(mode: str, coordinates: str, tmp_path: Path) -> None:
    for seed, rounding in enumerate(ROUNDINGS if mode == "nearest" else ROUNDINGS[:1]):
        pick = random.Random(f"{mode} {coordinates} {seed}")
        channels, height, width = (pick.randint(3, 20) for _ in range(3))
        net = Net((pick.choice([1, 2]), channels, height, width), seed)
        if pick.random() < 0.5:
            scales = [1, 1, *(pick.choice([0.5, 0.7, 1.3, 1.5, 2, 3]) for _ in range(2))]
            given = ("", net.constant(np.array(scales, np.float32)))
        else:
            sizes = [net.shape[0], channels, *(pick.randint(1, 25) for _ in range(2))]
            given = ("", "", net.constant(np.array(sizes)))
        attrs = {"nearest_mode": rounding} if mode == "nearest" else {}
        x = net.add("Resize", "x", *given, mode=mode, coordinate_transformation_mode=coordinates, **attrs)
        (tmp_path / str(seed)).mkdir()
        check(net, net.add("Relu", x), tmp_path / str(seed))


def test_resize_of_rows_and_columns_by_their_axes(tmp_path: Path) -> None:
    net = Net((1, 5, 6, 7))
    scales = net.constant(np.array([2, 3], np.float32))
    x = net.add("Resize", "x", "", scales, axes=[2, 3], mode="linear")
    check(net, net.conv(x, 5, 4, 1), tmp_path)


def test_resize_added_to_a_convolution(tmp_path: Path) -> None:
    net = Net((1, 5, 6, 6))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    wide = net.add("Resize", net.conv("x", 5, 9, 1), "", scales, mode="nearest", nearest_mode="floor")
    again = net.conv(net.add("Relu", wide), 9, 9, 3, pads=[1, 1, 1, 1])
    check(net, net.add("Relu", net.add("Add", again, wide)), tmp_path)


def transposed(net: Net, given: int, made: int, kernel: int, groups: int = 1, **attrs: object) -> str:
    x = net.add("Relu", net.conv("x", net.shape[1], given, 1))
    weight = net.weight(given, made // groups, kernel, kernel, scale=0.2)
    return net.add("ConvTranspose", x, weight, net.weight(made), group=groups, **attrs)


@pytest.mark.parametrize(
    ("kernel", "attrs"),
    [
        (2, {"strides": [2, 2]}),
        (3, {"strides": [2, 2]}),
        (3, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        (4, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (2, {"strides": [3, 3], "output_padding": [1, 0]}),
        (3, {"dilations": [2, 2], "pads": [1, 0, 2, 1]}),
    ],
)
@pytest.mark.parametrize("made", [16, 13])
def test_transposed_convolutions(made: int, kernel: int, attrs: dict[str, list[int]], tmp_path: Path) -> None:
    net = Net((1, 3, 6, 7), seed=made)
    check(net, net.add("Relu", transposed(net, 9, made, kernel, **attrs)), tmp_path)


@pytest.mark.parametrize("groups", [2, 3, 12])
def test_transposed_convolutions_in_groups(groups: int, tmp_path: Path) -> None:
    net = Net((1, 3, 5, 5), seed=groups)
    x = transposed(net, 12, 12, 3, groups, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    check(net, net.conv(x, 12, 5, 3), tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_random_transposed_convolutions(seed: int, tmp_path: Path) -> None:
    pick = random.Random(seed)
    groups, kernel = pick.choice([1, 1, 2, 3]), pick.randint(1, 5)
    given, made = groups * pick.randint(1, 7), groups * pick.randint(1, 9)
    net = Net((pick.choice([1, 2]), 3, pick.randint(4, 9), pick.randint(4, 9)), seed)
    strides = [pick.randint(1, 3), pick.randint(1, 3)]
    window = {
        "strides": strides,
        "pads": [pick.randint(0, 1) for _ in range(4)],
        "dilations": [pick.choice([1, 2]), pick.choice([1, 3])],
        "output_padding": [pick.randint(0, stride - 1) for stride in strides],
    }
    check(net, transposed(net, given, made, kernel, groups, **window), tmp_path, threads=pick.choice([1, 2]))
