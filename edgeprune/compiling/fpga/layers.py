"""One quantised layer as the core's arithmetic sees it, and its weights as the core reads them. Start with `Layer`.

Everything the core computes is a `Layer`: a convolution, dense or grouped; a linear layer (a convolution whose kernel
is the whole picture); a pooling (ones, channel by channel); an addition (an identity); an addition to some channels
only (a 0/1 matrix that moves channels to their places).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.commands import SHIFT_OFFSET, SHIFTS
from edgeprune.errors import CompileError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Addition:
    """A tensor of the output's shape is added; the arithmetic is that of `commands.Output`.

    Attributes:
        scale_main, scale_skip: Integers from 0 to 65535, over 2**sum_shift (1 to 32).
        zero_skip, zero_sum: Zero points of what is added and of the sum.
    """

    scale_main: int
    scale_skip: int
    sum_shift: int
    zero_skip: int = 0
    zero_sum: int = 0


@dataclass(frozen=True)
class Layer:
    """A layer in integers.

    Attributes:
        weights: int8 [out, in / groups, kernel rows, kernel columns], zero point 0.
        bias: int32 [out]; it takes the input's zero point in: `bias - zero_in * weights.sum`.
        multiplier, shift: [out]; a sum becomes `round(sum * multiplier / 2**shift) + zero`.
        padding: Rows above, columns left, rows below, columns right, filled with `padding_value` (the zero point).
        low, high: What the result is held in, after the addition if there is one; a ReLU is `low = zero`.
        maximum: The largest of the products, not their sum: a max-pooling.
        skips_zeros: Whether input planes that have zeros alone for weights are left out, because the zeros are there by
            the layer's form (a choice of channels). Pruned weights are read: a masked network costs what a dense one
            does.
    """

    weights: Int8
    bias: Int32
    multiplier: Int32
    shift: NDArray[np.int64]
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    padding_value: int = 0
    zero: int = 0
    low: int = -128
    high: int = 127
    maximum: bool = False
    skips_zeros: bool = False
    addition: Addition | None = None

    def __post_init__(self) -> None:
        out = len(self.weights)
        if self.weights.dtype != np.int8 or self.weights.ndim != 4 or out % self.groups:
            raise CompileError(
                f"not int8 in 4 dimensions, in {self.groups} groups: {self.weights.dtype} {self.weights.shape}"
            )
        if not len(self.bias) == len(self.multiplier) == len(self.shift) == out:
            raise CompileError(f"{out} output channels need as many biases, multipliers and shifts")
        if out and not (self.shift.min() in SHIFTS and self.shift.max() in SHIFTS and self.multiplier.min() >= 0):
            raise CompileError(f"shifts are {SHIFTS[0]} to {SHIFTS[-1]}, multipliers not negative")

    @property
    def in_channels(self) -> int:
        """Channels that come in."""
        return int(self.weights.shape[1]) * self.groups

    @property
    def out_channels(self) -> int:
        """Channels that go out."""
        return len(self.weights)

    @property
    def is_channelwise(self) -> bool:
        """Whether every channel goes out as it came in: depthwise convolutions and poolings."""
        return self.groups == self.in_channels == self.out_channels

    def picture(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns that go out for those that come in."""
        above, left, below, right = self.padding
        reach = [(self.weights.shape[2 + k] - 1) * self.dilation[k] + 1 for k in (0, 1)]
        found = ((rows + above + below - reach[0]) // self.stride[0] + 1,
                 (columns + left + right - reach[1]) // self.stride[1] + 1)  # fmt: skip
        if min(found) < 1:
            raise CompileError(f"a picture of {rows} x {columns} is smaller than the kernel {reach[0]} x {reach[1]}")
        return found

    def macs(self, rows: int, columns: int) -> int:
        """Multiply-adds that the layer means, for an input of that size."""
        out = self.picture(rows, columns)
        return out[0] * out[1] * int(self.weights.size)

    def block(self, n: int, out_plane: int, in_plane: int) -> NDArray[np.int8]:
        """int8 [kernel rows, kernel columns, N in, N out]: what joins two planes, channelwise layers apart."""
        per_group = self.weights.shape[1]
        block = np.zeros((n, n, *self.weights.shape[2:]), np.int8)  # out, in
        outs = range(out_plane * n, min((out_plane + 1) * n, self.out_channels))
        for lane, channel in enumerate(outs):
            first = channel // (self.out_channels // self.groups) * per_group
            low, high = max(first, in_plane * n), min(first + per_group, (in_plane + 1) * n)
            if low < high:
                lanes = slice(low - in_plane * n, high - in_plane * n)
                block[lane, lanes] = self.weights[channel, low - first : high - first]
        return block.transpose(2, 3, 1, 0)


@dataclass(frozen=True)
class Scaled:
    """Real factors as integers: `multiplier / 2**shift`, the multiplier in 31 bits."""

    multiplier: Int32
    shift: NDArray[np.int64] = field(repr=False)


def scaled(factors: NDArray[np.float64]) -> Scaled:
    """Factors of a sum as multiplier and shift, with a relative error of 2**-31.

    Raises:
        CompileError: a factor is negative, not finite, or 2**14 and more.

    >>> scaled(np.array([0.75]))
    Scaled(multiplier=array([1610612736], dtype=int32))
    """
    if not (np.isfinite(factors).all() and (factors >= 0).all()):
        raise CompileError("a layer's scales are not finite positive numbers", hint="was it calibrated with data?")
    fraction, exponent = np.frexp(factors)
    multiplier = np.rint(fraction * 2.0**31).astype(np.int64)
    carried = multiplier == 1 << 31
    multiplier[carried] >>= 1
    shift = 31 - exponent.astype(np.int64) - carried
    if shift.min(initial=SHIFTS[0]) < SHIFTS[0]:
        raise CompileError(f"a factor of {factors.max():g} is more than the core can multiply by (2**14)")
    nothing = (shift > SHIFTS[-1]) | (multiplier == 0)  # less than 2**-33: rounded to 0 whatever the sum
    multiplier[nothing], shift[nothing] = 0, SHIFTS[-1]
    return Scaled(multiplier.astype(np.int32), shift)


def pooling(
    channels: int, kernel: tuple[int, int], *, average: float | None = None, zero: int = 0, padding_value: int = -128,
    stride: tuple[int, int] = (1, 1), padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Layer:  # fmt: skip
    """A max-pooling, or, with the factor that a sum of samples is multiplied by, an average pooling.

    Args:
        channels: Channels in and out.
        kernel: Rows, columns.
        average: `scale_in / (scale_out * samples)`; None: the maximum.
        zero: Zero point in and out (average).
        padding_value: What lies outside: the zero point in of an average, which counts it as a sample.
        stride, padding, dilation: As in `Layer`.
    """
    ones = np.ones((channels, 1, *kernel), np.int8)
    factor = scaled(np.full(channels, 1.0 if average is None else average))
    taps = 0 if average is None else kernel[0] * kernel[1]
    return Layer(
        ones, np.full(channels, -zero * taps, np.int32), factor.multiplier, factor.shift, groups=channels,
        stride=stride, padding=padding, dilation=dilation, padding_value=padding_value,
        zero=0 if average is None else zero, maximum=average is None,
    )  # fmt: skip


def addition(places: NDArray[np.int64], channels: int, zero: int, added: Addition, low: int = -128) -> Layer:
    """The addition of a tensor to some channels of another, which is the layer's `skip`.

    A channel k of the input is moved to channel `places[k]` of the sum; channels that nothing is moved to stay as
    they are but for the scales. With `places = arange(channels)` it is a whole addition.

    Args:
        places: int [in channels].
        channels: Channels of the sum.
        zero: Zero point of the input.
        added: The scales.
        low: The sum's least value; its zero point for a ReLU.
    """
    weights = np.zeros((channels, len(places), 1, 1), np.int8)
    weights[places, np.arange(len(places))] = 1
    moved = weights.any(axis=(1, 2, 3))
    one = scaled(np.ones(channels))
    return Layer(
        weights, np.where(moved, -zero, 0).astype(np.int32), one.multiplier, one.shift,
        padding_value=zero, zero=zero, low=low, addition=added, skips_zeros=True,
    )  # fmt: skip


def folded(layer: Layer) -> Layer:
    """The same layer with its kernel's columns as channels, for what `fold` makes of its input.

    A first layer has 3 channels, and the other columns of the array would wait; with its columns folded a 3x3 kernel
    is a 3x1 kernel over 9 channels. Whoever writes the picture into the memory can write it so.
    """
    if layer.groups != 1 or layer.maximum:
        raise CompileError("only the columns of a dense convolution can be folded")
    weights = np.concatenate([layer.weights[..., k : k + 1] for k in range(layer.weights.shape[3])], axis=1)
    above, _, below, _ = layer.padding
    return replace(
        layer, weights=weights, stride=(layer.stride[0], 1), dilation=(layer.dilation[0], 1),
        padding=(above, 0, below, 0),
    )  # fmt: skip


@dataclass(frozen=True)
class ColumnFold:
    """How a picture is written for `folded(layer)`: one copy of it a column of the kernel.

    Attributes:
        left, right: Columns of `value` beside the picture.
        value: The zero point.
        starts: First column of each copy, in the picture with its borders.
        step: Every how many columns are copied.
        columns: Of a copy.
    """

    left: int
    right: int
    value: int
    starts: tuple[int, ...]
    step: int
    columns: int

    def apply(self, tensor: Int8) -> Int8:
        """int8 [channels, rows, columns] as it is to be written."""
        wide = np.pad(tensor, ((0, 0), (0, 0), (self.left, self.right)), constant_values=self.value)
        reach = (self.columns - 1) * self.step + 1
        return np.concatenate([wide[:, :, start : start + reach : self.step] for start in self.starts])


def column_fold(layer: Layer, columns: int) -> ColumnFold:
    """How a picture of so many columns is written for `folded(layer)`."""
    _, left, _, right = layer.padding
    width = layer.weights.shape[3]
    reach = (width - 1) * layer.dilation[1] + 1
    copied = (columns + left + right - reach) // layer.stride[1] + 1
    starts = tuple(k * layer.dilation[1] for k in range(width))
    return ColumnFold(left, right, layer.padding_value, starts, layer.stride[1], copied)


def fold(layer: Layer, tensor: Int8) -> Int8:
    """A picture int8 [channels, rows, columns] as `folded(layer)` reads it."""
    return column_fold(layer, tensor.shape[2]).apply(tensor)


def parameters(layer: Layer, n: int, out_plane: int) -> Int8:
    """int8 [9 N]: biases, multipliers and shifts of N channels."""
    lanes = slice(out_plane * n, min((out_plane + 1) * n, layer.out_channels))
    count = lanes.stop - lanes.start
    bias, multiplier, shift = np.zeros(n, "<i4"), np.zeros(n, "<i4"), np.zeros(n, np.uint8)
    bias[:count], multiplier[:count] = layer.bias[lanes], layer.multiplier[lanes]
    shift[:count] = layer.shift[lanes] - SHIFT_OFFSET
    return np.concatenate([part.view(np.int8) for part in (bias, multiplier, shift)])


def pack(tensor: Int8, n: int) -> Int8:
    """int8 [channels, rows, columns] as the core keeps it: [planes, rows, columns, N], the last plane filled with 0."""
    channels, rows, columns = tensor.shape
    planes = -(-channels // n)
    padded = np.zeros((planes * n, rows, columns), np.int8)
    padded[:channels] = tensor
    return np.ascontiguousarray(padded.reshape(planes, n, rows, columns).transpose(0, 2, 3, 1))


def unpack(words: Int8, channels: int) -> Int8:
    """The other way: int8 [planes, rows, columns, N] to [channels, rows, columns]."""
    planes, rows, columns, n = words.shape
    return words.transpose(0, 3, 1, 2).reshape(planes * n, rows, columns)[:channels]
