"""Winograd convolutions must equal direct ones, however they are cut, and be chosen only where they pay."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tvm

from edgeprune.compiling import compile_onnx
from edgeprune.compiling.processors import target
from edgeprune.compiling.tvm import winograd
from edgeprune.compiling.tvm.build import plan
from edgeprune.compiling.tvm.layout import stored_channels, vector_lanes
from edgeprune.compiling.tvm.tile import Tile
from edgeprune.compiling.tvm.winograd_choice import PIXELS, Blocks, Machine, choose_blocks, winograd_cycles
from tests.unit.onnx_nets import Net, narrow_target, reference
from tests.unit.test_compiling_tvm import run

TOLERANCE = 5e-6
WIDE = Machine(lanes=16, registers=32, l2_bytes=1 << 20, threads=1)


def check(net: Net, output: str, folder: Path, threads: int = 1, target_name: str = "host") -> None:
    path, image = net.save(folder / "net.onnx", output), net.image()
    want = reference(path, image)
    artifact = compile_onnx(path, folder / "out", runtime="tvm", threads=threads, target=target_name)
    got = run(artifact, image)
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def kernels(path: Path) -> Counter[str]:
    """How many kernels of each kind are left after fusion."""
    module = plan(path, target("host"), 1).module
    names = (name.name_hint for name, kernel in module.functions_items() if isinstance(kernel, tvm.tirx.PrimFunc))
    return Counter("winograd" if "winograd" in name else "other" for name in names)


@pytest.mark.parametrize("pixels", PIXELS)
def test_transforms_are_a_correlation(pixels: int) -> None:
    generator = np.random.default_rng(pixels)
    row, kernel = generator.standard_normal(pixels + 2), generator.standard_normal(3)
    points = np.array(winograd.to_points(list(row))) * (winograd.weight_transform(pixels) @ kernel)
    got = winograd.from_points(list(points))
    np.testing.assert_allclose(got, np.correlate(row, kernel, "valid"), atol=1e-13)


@pytest.mark.parametrize(
    ("pixels", "size", "tiles", "channels", "threads"),
    [
        (4, (8, 12), (2, 3), (16, 16), 2),
        (4, (8, 12), (1, 3), (19, 49), 1),
        (4, (13, 17), (2, 2), (16, 16), 1),
        (4, (13, 17), (2, 2), (19, 49), 2),
        (4, (7, 9), (1, 1), (19, 49), 1),
        (2, (5, 8), (3, 4), (19, 49), 2),
        (2, (9, 7), (2, 2), (16, 16), 1),
    ],
)
def test_any_cut(
    pixels: int,
    size: tuple[int, int],
    tiles: tuple[int, int],
    channels: tuple[int, int],
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lanes = target("host").vector_bits // 32
    number = tuple(-(-extent // (pixels * step)) for extent, step in zip(size, tiles, strict=True))
    vectors = stored_channels(channels[1], lanes) // vector_lanes(channels[1], lanes)
    tile = Tile(1, tiles[1], 2 - vectors % 2)
    blocks = Blocks(pixels, tiles, (number[0], number[1]), tile, vector_lanes(channels[1], lanes))
    monkeypatch.setattr(winograd, "choose_blocks", lambda *_: blocks)
    net = Net((1, channels[0], *size), seed=channels[1])
    x = net.add("Relu", net.conv("x", *channels, 3, pads=[1, 1, 1, 1]))
    check(net, x, tmp_path, threads)


@pytest.mark.parametrize("seed", range(6))
def test_random_windows_and_what_follows(seed: int, tmp_path: Path) -> None:
    pick = random.Random(seed)
    batch, channels, made = pick.choice([1, 1, 2]), pick.choice([16, 21, 33]), pick.choice([4, 9, 20, 33])
    net = Net((batch, channels, pick.randint(9, 23), pick.randint(9, 23)), seed)
    pads = [pick.randint(0, 2) for _ in range(4)]
    x = net.conv("x", channels, made, 3, pick.random() < 0.5, pads=pads)
    if pick.random() < 0.5:
        x = net.add("Add", x, net.conv("x", channels, made, 3, pads=pads))
    check(net, net.add(pick.choice(["Relu", "Sigmoid", "HardSwish"]), x), tmp_path, threads=pick.choice([1, 2]))


@pytest.mark.parametrize("bits", [128, 256])
def test_narrower_vectors(bits: int, tmp_path: Path) -> None:
    net = Net((1, 16, 14, 10))
    x = net.add("Relu", net.conv("x", 16, 27, 3, pads=[1, 1, 1, 1]))
    x = net.conv(x, 27, 12, 3, pads=[1, 1, 1, 1])
    check(net, x, tmp_path, target_name=narrow_target(tmp_path, bits))


def test_index_addition_behind_a_winograd_convolution(tmp_path: Path) -> None:
    net = Net((1, 16, 12, 12))
    left = net.gather(net.conv("x", 16, 17, 3, pads=[1, 1, 1, 1]), [0, 17, *range(1, 17), 17], zero_after=17)
    right = net.gather(net.conv("x", 16, 18, 1), [18, *range(18)], zero_after=18)
    output = net.add("Relu", net.add("Add", left, right))
    assert kernels(net.save(tmp_path / "kernels.onnx", output))["winograd"] == 1
    check(net, output, tmp_path)


def test_what_follows_is_fused(tmp_path: Path) -> None:
    net = Net((1, 32, 16, 16))
    x = net.add("Relu", net.conv("x", 32, 32, 3, pads=[1, 1, 1, 1]))
    output = net.add("Relu", net.add("Add", net.conv(x, 32, 32, 3, pads=[1, 1, 1, 1]), "x"))
    made = kernels(net.save(tmp_path / "kernels.onnx", output))
    assert made["winograd"] == 2
    assert made["other"] <= 2  # the input's and the output's way between ONNX's order and the stored form


@pytest.mark.parametrize(
    "attrs", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"strides": [1, 2]}, {"group": 2}], ids=str
)
def test_other_windows_are_not_for_winograd(attrs: dict[str, object], tmp_path: Path) -> None:
    net = Net((1, 32, 16, 16))
    x = net.conv("x", 32, 32, 3, pads=[2, 2, 2, 2], **attrs)
    assert kernels(net.save(tmp_path / "net.onnx", x))["winograd"] == 0


@pytest.mark.parametrize(
    ("size", "channels", "pixels"),
    [
        (224, (64, 64), 4),
        (56, (64, 64), 4),
        (14, (512, 512), 4),
        (32, (16, 16), 4),
        (56, (33, 29), 4),
        (224, (3, 64), None),  # transforms would work on vectors nearly empty
        (7, (512, 512), None),  # weights would take longer from memory than the multiply-adds saved
    ],
)
def test_choice_on_a_wide_machine(size: int, channels: tuple[int, int], pixels: int | None) -> None:
    blocks = choose_blocks((size, size), channels, WIDE)
    assert (blocks.pixels if blocks else None) == pixels


@pytest.mark.parametrize("machine", [WIDE, Machine(4, 32, None, 2), Machine(4, 16, 512 << 10, 4)], ids=str)
def test_chosen_blocks_cover_the_image_once(machine: Machine) -> None:
    pick = random.Random(machine.lanes)
    chosen = 0
    for _ in range(40):
        size, channels = (pick.randint(4, 60), pick.randint(4, 60)), (pick.randint(1, 200), pick.randint(1, 200))
        blocks = choose_blocks(size, channels, machine)
        chosen += blocks is not None
        for axis in range(2 if blocks else 0):
            reach = blocks.tiles[axis] * blocks.pixels
            assert (blocks.number[axis] - 1) * reach < size[axis] <= blocks.number[axis] * reach
    assert chosen


def test_large_weights_are_read_once() -> None:
    blocks = choose_blocks((28, 28), (512, 512), WIDE)
    assert blocks is not None
    assert blocks.number == (1, 1)


def test_as_many_blocks_as_threads_cost_less_than_one_more() -> None:
    two = Machine(WIDE.lanes, WIDE.registers, WIDE.l2_bytes, 2)
    halves = Blocks(4, (7, 14), (2, 1), Tile(1, 7, 2), 16)
    thirds = Blocks(4, (5, 14), (3, 1), Tile(1, 7, 2), 16)
    assert winograd_cycles(halves, (56, 56), (64, 64), two) < winograd_cycles(thirds, (56, 56), (64, 64), two)
