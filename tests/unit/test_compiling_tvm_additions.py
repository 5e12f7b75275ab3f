"""Index-additions in what TVM compiles: equal to ONNX Runtime, and one kernel each whatever is gathered."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune as ep
from edgeprune.compiling import compile_onnx
from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.graph import read_graph
from edgeprune.compiling.tvm.rewrite import rewrite
from edgeprune.compiling.tvm.slots import choose_slots
from tests.unit.onnx_nets import Net, narrow_target, reference
from tests.unit.test_compiling_tvm import TOLERANCE, check, run

MOVES = ("ChannelGather", "Gather", "Pad", "Concat", "Slice")


def spread(net: Net, pick: random.Random, x: str, channels: int, width: int, size: int) -> str:
    """Some channels of x scattered in any order over `width`, the others zero or constants."""
    order = pick.sample(range(channels), min(channels, width))
    if pick.random() < 0.5:
        index = [*order, *[channels] * (width - len(order))]
        pick.shuffle(index)
        return net.gather(x, index, zero_after=channels)
    extra = pick.randint(1, 4)
    values = net.random.standard_normal((1, extra, 1, 1)).astype(np.float32)
    constant = net.constant(np.tile(values, (net.shape[0], 1, size, size)))
    index = [*order, *(channels + pick.randrange(extra) for _ in range(width - len(order)))]
    pick.shuffle(index)
    return net.gather(net.add("Concat", x, constant, axis=1), index)


def activation(net: Net, pick: random.Random, x: str, width: int) -> str:
    if pick.random() < 0.3:
        x = net.add("Add", *pick.sample([x, net.weight(1, width, 1, 1)], 2))
    kind = pick.choice(["Relu", "Clip", "Clip above", "Sigmoid", ""])
    if kind.startswith("Clip"):
        low = "" if kind.endswith("above") else net.constant(np.float32(-0.4))
        return net.add("Clip", x, low, net.constant(np.float32(0.9)))
    return net.add(kind, x) if kind else x


def random_addition(seed: int) -> tuple[Net, str, random.Random]:
    """Two branches of a random stem, of which one or both are gathered, and a convolution that reads the sum."""
    pick = random.Random(seed)
    size, stem = pick.choice([5, 8, 13]), pick.choice([3, 12, 21])
    net = Net((pick.choice([1, 2]), 3, size, size), seed)
    x = net.add("Relu", net.conv("x", 3, stem, 1))
    widths = [pick.choice([4, 10, 16, 27, 41, 75]), pick.choice([9, 16, 30, 70])]
    strides = pick.choice([1, 2])
    extent = -(-size // strides)
    kernel = pick.choice([1, 3])
    first = net.conv(x, stem, widths[0], kernel, pick.random() < 0.7, pads=[kernel // 2] * 4, strides=[strides] * 2)
    second = net.conv(x, stem, widths[1], 1, strides=[strides] * 2)
    if pick.random() < 0.5:
        second = net.add("Relu", second)
    width = pick.choice([widths[0], widths[1], max(widths) + pick.choice([1, 9, 30])])
    branches = [
        branch if channels == width and pick.random() < 0.6 else spread(net, pick, branch, channels, width, extent)
        for branch, channels in zip((first, second), widths, strict=True)
    ]
    total = activation(net, pick, net.add("Add", *pick.sample(branches, 2)), width)
    return net, net.add("Add", net.conv(total, width, 5, 1), net.conv(total, width, 5, 1)), pick


@pytest.mark.parametrize("seed", range(24))
def test_random_additions(seed: int, tmp_path: Path) -> None:
    net, output, pick = random_addition(seed)
    check(net, output, tmp_path, threads=pick.choice([1, 2]))


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("seed", range(100, 104))
def test_random_additions_with_narrower_vectors(bits: int, seed: int, tmp_path: Path) -> None:
    net, output, _ = random_addition(seed)
    path, image = net.save(tmp_path / "net.onnx", output), net.image()
    got = run(compile_onnx(path, tmp_path / "out", runtime="tvm", target=narrow_target(tmp_path, bits)), image)
    want = reference(path, image)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def operators(net: Net, output: str, folder: Path) -> Counter[str]:
    graph = rewrite(read_graph(net.save(folder / "graph.onnx", output)), 16)
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize("gathered", ["left", "right", "both"])
@pytest.mark.parametrize("constants", [False, True])
def test_nothing_is_copied_before_or_after_the_sum(gathered: str, constants: bool, tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    stream = net.add("Relu", net.conv("x", 3, 12, 1))
    left, right = net.conv(stream, 12, 12 if gathered == "right" else 7, 3, pads=[1, 1, 1, 1]), stream
    index = {"left": (7, range(7)), "right": (12, (*range(5), *range(6, 12))), "both": (7, range(7))}
    if gathered != "right":
        left = extended(net, left, 7, [*index[gathered][1], *[7] * 5], constants)
    if gathered != "left":
        right = extended(net, right, 12, [12, *range(1, 12)], constants)
    total = net.add("Relu", net.add("Add", net.add("Add", left, right), net.weight(12, 1, 1)))
    output = net.conv(total, 12, 4, 1)
    found = operators(net, output, tmp_path)
    assert found["ConvIndexAdd"] == 1
    assert not any(found[op] for op in (*MOVES, "Add"))
    assert found["Relu"] == 1
    check(net, output, tmp_path)


def extended(net: Net, x: str, channels: int, index: list[int], constants: bool) -> str:
    if not constants:
        return net.gather(x, index, zero_after=channels)
    return net.gather(net.add("Concat", x, net.constant(np.full((1, 1, 6, 6), 0.7, np.float32)), axis=1), index)


def test_operands_without_a_convolution_are_added_in_one_pass(tmp_path: Path) -> None:
    net = Net((1, 3, 7, 7))
    stem = net.conv("x", 3, 20, 1)
    left = net.gather(net.add("Relu", stem), [*range(20), *[20] * 6], zero_after=20)
    right = net.gather(net.add("Tanh", stem), [*[20] * 6, *range(20)], zero_after=20)
    output = net.conv(net.add("Relu", net.add("Add", left, right)), 26, 3, 1)
    found = operators(net, output, tmp_path)
    assert found["IndexAdd"] == 1
    assert not any(found[op] for op in MOVES)
    check(net, output, tmp_path, threads=2)


def test_a_convolution_that_others_read_too_is_computed_once(tmp_path: Path) -> None:
    net = Net((1, 3, 7, 7))
    shared = net.conv("x", 3, 9, 3, pads=[1, 1, 1, 1])
    total = net.add("Add", net.gather(shared, [9, *range(9), 9], zero_after=9), net.conv("x", 3, 11, 1))
    output = net.add("Add", net.conv(total, 11, 6, 1), net.conv(shared, 9, 6, 1))
    assert operators(net, output, tmp_path)["Conv"] == 3
    check(net, output, tmp_path)


def test_a_gather_that_repeats_a_filter(tmp_path: Path) -> None:
    net = Net((1, 3, 7, 7))
    left = net.gather(net.conv("x", 3, 4, 1), [0, 0, 3, 1, 1])
    check(net, net.add("Relu", net.add("Add", left, net.conv("x", 3, 5, 3, pads=[1, 1, 1, 1]))), tmp_path)


def test_a_constant_that_differs_between_pixels_stays(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    both = net.add("Concat", net.conv("x", 3, 4, 1), net.weight(1, 2, 6, 6), axis=1)
    check(net, net.add("Add", net.gather(both, [5, 0, 1, 4, 2]), net.conv("x", 3, 5, 1)), tmp_path)


def test_sums_of_slices(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    wide = net.conv("x", 3, 24, 1)
    cut = [net.constant(np.array([part])) for part in (3, 20, 1, 2)]
    output = net.add("Add", net.add("Slice", net.add("Relu", wide), *cut), net.conv("x", 3, 9, 3, pads=[1, 1, 1, 1]))
    assert not operators(net, output, tmp_path)["Slice"]
    check(net, output, tmp_path)


def test_sums_of_windows_of_channels(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))

    def window(x: str, first: int, end: int, before: int, after: int) -> str:
        x = net.add("Slice", x, *(net.constant(np.array([part])) for part in (first, end, 1)))
        pads = net.constant(np.array([0, before, 0, 0, 0, after, 0, 0]))
        return net.add("Pad", x, pads, net.constant(np.float32(0)))

    stream = net.add("Relu", net.conv("x", 3, 24, 1))
    left = window(net.conv(stream, 24, 21, 3, pads=[1, 1, 1, 1]), 2, 20, 12, 0)
    output = net.conv(net.add("Relu", net.add("Add", left, window(stream, 0, 23, 0, 7))), 30, 5, 1)
    found = operators(net, output, tmp_path)
    assert found["ConvIndexAdd"] == 1
    assert not any(found[op] for op in MOVES)
    check(net, output, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_each_channel_finds_its_filter(seed: int) -> None:
    pick = np.random.default_rng(seed)
    lanes, vectors = int(pick.choice([4, 8, 16])), int(pick.integers(1, 30))
    wanted = np.full(lanes * vectors, FILL)
    held = pick.permutation(len(wanted))[: pick.integers(1, len(wanted) + 1)]
    wanted[held] = pick.permutation(len(held))
    slots = choose_slots(wanted, lanes, (14, 14), int(pick.integers(1, 900)), 32)
    assert sorted(vector for block in slots.outputs for vector in block) == list(range(vectors))
    for block, written in enumerate(slots.outputs):
        for channel in (vector * lanes + lane for vector in written for lane in range(lanes)):
            place = slots.places[channel]
            assert (place == FILL) == (wanted[channel] == FILL)
            assert place == FILL or slots.filters[block, place] == wanted[channel]
    assert (slots.filters != FILL).sum() == len(held)
    assert slots.filters.size <= lanes * vectors
    assert slots.filters.shape[1] == slots.tile.vectors * slots.lanes


def test_a_shrunk_residual_network(tmp_path: Path) -> None:
    model = ep.models.build("resnet20", num_classes=10).eval()
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.bias.data):
                values.uniform_(0.1, 1.0, generator=generator)
    example = torch.randn(1, 3, 32, 32, generator=generator)
    masks = ep.prune(model, example, method="random", ratio=0.5, seed=0)
    shrunk = ep.shrink(masks.apply(model), example)
    path = ep.export_onnx(shrunk.model, example, tmp_path / "net.onnx")
    image = example.numpy()
    graph = rewrite(read_graph(path), 16)
    assert not any(node.op in MOVES for node in graph.nodes)
    got, want = run(compile_onnx(path, tmp_path / "out", runtime="tvm", threads=2), image), reference(path, image)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), rtol=0)
