"""Layers for the simulated accelerator and what they must give, by plain formulas over windows and whole numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgeprune.compiling.fpga.geometry import Core, Memory
from edgeprune.compiling.fpga.layers import Layer, pack, unpack
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.meaning import execute
from edgeprune.compiling.fpga.places import Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.compiling.fpga.simulator import Simulation, simulate

Int8 = NDArray[np.int8]


def random_layer(rng: np.random.Generator, out: int, inner: int, kernel: tuple[int, int], **fields: object) -> Layer:
    """A layer with random weights whose results use the range of int8; `inner` is in channels over groups."""
    weights = rng.integers(-128, 128, (out, inner, *kernel), dtype=np.int8)
    bias = rng.integers(-5000, 5000, out, dtype=np.int32)
    taps = inner * kernel[0] * kernel[1]
    shift = rng.integers(31, 34, out) + int(np.log2(60 * taps**0.5))
    multiplier = rng.integers(1 << 30, 1 << 31, out).astype(np.int32)
    layer = Layer(weights, bias, multiplier, shift, zero=int(rng.integers(-20, 20)))
    return replace(layer, padding_value=int(rng.integers(-128, 128)), **fields)  # type: ignore[arg-type]


def expected(layer: Layer, x: Int8, skip: Int8 | None = None) -> Int8:
    """int8 [channels, rows, columns]."""
    above, left, below, right = layer.padding
    padded = np.pad(x.astype(np.int64), ((0, 0), (above, below), (left, right)), constant_values=layer.padding_value)
    reach = [(size - 1) * layer.dilation[k] + 1 for k, size in enumerate(layer.weights.shape[2:])]
    windows = sliding_window_view(padded, reach, axis=(1, 2))  # [channels, rows, columns, kernel rows, kernel columns]
    taken = windows[:, :: layer.stride[0], :: layer.stride[1], :: layer.dilation[0], :: layer.dilation[1]]
    grouped = taken.reshape(layer.groups, -1, *taken.shape[1:])
    weights = layer.weights.astype(np.int64).reshape(layer.groups, -1, *layer.weights.shape[1:])
    if layer.maximum:
        found = taken.max(axis=(3, 4))
    else:
        found = np.einsum("gcyxhw,gochw->goyx", grouped, weights).reshape(layer.out_channels, *taken.shape[1:3])
    sums = found + layer.bias[:, None, None]
    result = np.empty(sums.shape, np.int8)
    for place in np.ndindex(sums.shape):
        channel = place[0]
        scaled = Fraction(int(sums[place]) * int(layer.multiplier[channel]), 1 << int(layer.shift[channel]))
        value = min(max(nearest(scaled) + layer.zero, -128), 127)
        if layer.addition is not None:
            assert skip is not None
            added = layer.addition
            parts = (value - layer.zero) * added.scale_main + (int(skip[place]) - added.zero_skip) * added.scale_skip
            value = nearest(Fraction(parts, 1 << added.sum_shift)) + added.zero_sum
        result[place] = min(max(value, layer.low), layer.high)
    return result


def nearest(number: Fraction) -> int:
    """The nearest whole number, the upper of two."""
    return floor(number + Fraction(1, 2))


def run(
    core: Core, layer: Layer, x: Int8, skip: Int8 | None = None, behind: Memory | None = None
) -> tuple[Int8, Simulation]:
    """A layer on the simulated core, from memory to memory; what numpy makes of the same commands is compared, too."""
    rows, columns = layer.picture(*x.shape[1:])
    packed = [pack(x, core.n), *([] if skip is None else [pack(skip, core.n)])]
    at = np.cumsum([0, *(part.size for part in packed)])
    source = Tensor(*x.shape, memory=0)  # type: ignore[misc]
    added = None if skip is None else Tensor(layer.out_channels, rows, columns, memory=int(at[1]))
    out_bytes = core.planes(layer.out_channels) * rows * columns * core.n
    target = Tensor(layer.out_channels, rows, columns, memory=int(at[-1]))
    lowering = Lowering(Program(core), weights_at=int(at[-1]) + out_bytes)
    lowering.add(layer, source, target, added)
    blank = np.full(out_bytes, 85, np.int8)
    memory = np.concatenate([*(part.reshape(-1) for part in packed), blank, *lowering.weights])
    done = simulate(lowering.program, memory, behind)
    assert np.array_equal(done.memory, execute(core, lowering.program.commands, memory))
    words = done.memory[at[-1] : at[-1] + out_bytes].reshape(-1, rows, columns, core.n)
    return unpack(words, layer.out_channels), done
