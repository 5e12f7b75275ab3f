"""What a network computes on the core: int8 tensors, and the layers between them. Start with `Operation`.

A `View` is a tensor whose channels are picked anew, padded, subsampled or laid flat by what the network does between
two layers. A picture that is only looked at so is not copied: whoever reads it takes the choice into its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.layers import Addition, Layer, scaled
from edgeprune.compiling.fpga.qdq import Quanta
from edgeprune.errors import CompileError

Int64 = NDArray[np.int64]
NOTHING = -1  # picks a channel of zeros


@dataclass(frozen=True)
class Value:
    """An int8 tensor of one image.

    Attributes:
        name: Of the int8 tensor in the ONNX file, or of its own where the file has none.
        channels, rows, columns: Its shape; of a vector rows and columns are 1.
        quanta: What its values mean.
        rank: 4, or 2 for a vector.
    """

    name: str
    channels: int
    rows: int
    columns: int
    quanta: Quanta
    rank: int = 4


def value_of(name: str, shape: Sequence[int], quanta: Quanta) -> Value:
    """A tensor [1, C, H, W] or [1, C] of the file."""
    rows, columns = shape[2:] if len(shape) == 4 else (1, 1)
    return Value(name, shape[1], rows, columns, quanta, len(shape))


@dataclass(frozen=True)
class View:
    """A tensor as a layer reads it.

    Attributes:
        value: The tensor.
        picked: For each channel read the one it is of `value`, or `NOTHING`; None: all, as they are. Of a flat view
            places in the flat tensor.
        step: Every how many rows and columns are read.
        flat: Whether channels, rows and columns are one axis.
    """

    value: Value
    picked: tuple[int, ...] | None = None
    step: tuple[int, int] = (1, 1)
    flat: bool = False

    @property
    def channels(self) -> int:
        """Channels that a layer sees."""
        value = self.value
        if self.picked is not None:
            return len(self.picked)
        return value.channels * value.rows * value.columns if self.flat else value.channels

    @property
    def picture(self) -> tuple[int, int]:
        """Rows and columns that a layer sees."""
        value = self.value
        return (1, 1) if self.flat else (-(-value.rows // self.step[0]), -(-value.columns // self.step[1]))

    @property
    def is_whole(self) -> bool:
        """Whether it is the tensor as it lies in the memory."""
        value = self.value
        return self.picked is None and self.step == (1, 1) and (not self.flat or value.rows * value.columns == 1)

    @property
    def places(self) -> Int64:
        """int64 [channels]: where each comes from."""
        return np.arange(self.channels) if self.picked is None else np.array(self.picked, np.int64)

    def pick(self, places: Int64) -> View:
        """Other channels of this view, `NOTHING` for zeros; it is whole again if they are all in order."""
        known = np.append(self.places, NOTHING)
        chosen = known[places]
        count = replace(self, picked=None).channels
        whole = len(chosen) == count and bool((chosen == np.arange(count)).all())
        return replace(self, picked=None if whole else tuple(chosen.tolist()))


@dataclass(frozen=True)
class Operation:
    """One layer of the network on the core.

    Attributes:
        nodes: The ONNX nodes that it is.
        kind: Their operator, in the words of ONNX.
        layer: The arithmetic.
        source: What it reads.
        target: What it makes.
        skip: What it adds.
        macs: Multiply-adds that the network means: those of convolutions and linear layers.
    """

    nodes: tuple[str, ...]
    kind: str
    layer: Layer
    source: Value
    target: Value
    skip: Value | None = None
    macs: int = 0

    @property
    def reads(self) -> tuple[Value, ...]:
        """All that it reads."""
        return (self.source,) if self.skip is None else (self.source, self.skip)


@dataclass(frozen=True)
class Bounds:
    """What the real values are held in before they are quantised: a ReLU, or a clip."""

    low: float = -math.inf
    high: float = math.inf

    def both(self, other: Bounds) -> Bounds:
        """One after the other."""
        return Bounds(max(self.low, other.low), min(self.high, other.high))

    def quantised(self, quanta: Quanta) -> tuple[int, int]:
        """The int8 values that are the bounds."""

        def place(bound: float) -> int:
            return round(min(max(bound / quanta.scale + quanta.zero, -128.0), 127.0))

        return place(self.low), place(self.high)


@dataclass(frozen=True)
class Window:
    """The kernel of a convolution or pooling: strides, padding (above, left, below, right), dilation."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Weights:
    """int8 [out, in / groups, rows, columns], real factors [out] of the sums, and int32 [out] that is added to them.

    `skips_zeros` is that of the layer.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float64]
    bias: NDArray[np.int64] = field(repr=False)
    groups: int = 1
    skips_zeros: bool = False


def weighted(weights: Weights, window: Window, source: Quanta, target: Quanta, bounds: Bounds) -> Layer:
    """A layer of sums of products: a convolution, a linear layer, an average, a choice of channels.

    `weights.scale` is that of the products without the tensors' own scales.
    """
    bias = weights.bias - source.zero * weights.values.astype(np.int64).sum(axis=(1, 2, 3))
    if np.abs(bias).max(initial=0) >= 1 << 31:
        raise CompileError("a bias does not fit 32 bits", hint="was it calibrated with data?")
    factor = scaled(weights.scale * (source.scale / target.scale))
    low, high = bounds.quantised(target)
    return Layer(
        weights.values, bias.astype(np.int32), factor.multiplier, factor.shift, groups=weights.groups,
        stride=window.stride, padding=window.padding, dilation=window.dilation, padding_value=source.zero,
        zero=target.zero, low=low, high=high, skips_zeros=weights.skips_zeros,
    )  # fmt: skip


def choice(view: View) -> Weights:
    """The 1x1 weights, 0 and 1, that make a view a tensor."""
    weights = np.zeros((view.channels, view.value.channels, 1, 1), np.int8)
    places = view.places
    real = places != NOTHING
    weights[np.flatnonzero(real), places[real]] = 1
    return Weights(weights, np.ones(len(weights)), np.zeros(len(weights), np.int64), skips_zeros=True)


def added(main: Quanta, skip: Quanta, target: Quanta) -> Addition:
    """The addition of two tensors in the core's 16-bit scales.

    Raises:
        CompileError: one scale is 2**15 times the sum's or more.
    """
    parts = (main.scale / target.scale, skip.scale / target.scale)
    shift = min(32, math.floor(math.log2(65535 / max(parts))))
    if shift < 1:
        raise CompileError(f"a tensor of scale {max(main.scale, skip.scale):g} is added to one of {target.scale:g}")
    return Addition(round(parts[0] * 2**shift), round(parts[1] * 2**shift), shift, skip.zero, target.zero)


def addition(main: View, skip: Quanta, target: Quanta, bounds: Bounds) -> Layer:
    """A layer that adds a view, channel by channel, to the tensor that is its `skip`."""
    layer = weighted(choice(main), Window(main.step), main.value.quanta, main.value.quanta, Bounds())
    low, high = bounds.quantised(target)
    return replace(layer, addition=added(main.value.quanta, skip, target), low=low, high=high)
