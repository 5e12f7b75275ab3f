"""Rule of Resize: which rows and columns of the input make each of the output, and with what weights, is settled here.

Each row of the output is a weighted sum of a few rows of the input (`Taps`), each column likewise: one row for nearest,
two for linear, four for cubic. The kernel reads their numbers from two small constants, channels in vectors. Start with
`resize`; the coordinates are those of ONNX's specification of Resize, computed in float32 as ONNX Runtime does, so that
ties fall to the same side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te

from edgeprune.compiling.tvm.convolution import FUSABLE
from edgeprune.compiling.tvm.graph import Array, Node
from edgeprune.compiling.tvm.layout import Stored
from edgeprune.compiling.tvm.lower import INJECTIVE, Lowering, Value

_F = np.float32
_ROUNDED: dict[str, Callable[[Any], Any]] = {
    "round_prefer_floor": lambda x: np.ceil(x - _F(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + _F(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_COMPUTED = {
    "mode": ("nearest", "linear", "cubic"),
    "coordinate_transformation_mode": _COORDINATES,
    "keep_aspect_ratio_policy": ("stretch",),
    "antialias": (0,),
}


@dataclass(frozen=True)
class Taps:
    """Along one axis, what each output position reads.

    Attributes:
        places: int32 [output, taps], positions of the input.
        weights: float32 [output, taps]; None where a position is copied as it is.
    """

    places: Array
    weights: Array | None

    @property
    def repeats(self) -> int | None:
        """How often each position is repeated, if they are copied in order."""
        times, rest = divmod(len(self.places), int(self.places.max()) + 1)
        in_order = np.arange(len(self.places)) // max(times, 1)
        return times if self.weights is None and not rest and np.array_equal(self.places[:, 0], in_order) else None


def resize(lowering: Lowering, node: Node) -> Value | None:
    """Rule of Resize, opset 11 or newer, over rows and columns."""
    known = all(node.attrs.get(name, allowed[0]) in allowed for name, allowed in _COMPUTED.items())
    if not known or lowering.graph.opset < 11 or not lowering.can_store(node.inputs[0]):
        return None
    image = lowering.stored(node.inputs[0])
    n, height, width, stored = image.shape
    scaled = _scaled(lowering, node, (n, image.channels, height, width)) if image.rank == 4 else None
    if scaled is None:
        return None
    rows, cols = (taps(node.attrs, size, *given) for size, given in zip((height, width), scaled, strict=True))
    down, down_arguments = _read(rows)
    across, across_arguments = _read(cols)
    first = len(down_arguments)

    def compute(x: te.Tensor, *given: te.Tensor) -> te.Tensor:
        def pixel(n: Any, h: Any, v: Any, c: Any) -> Any:
            parts = [
                _weighted(x[n, row, col, c], left, right)
                for row, left in down(given[:first], h)
                for col, right in across(given[first:], v)
            ]
            return sum(parts[1:], parts[0])

        return te.compute((n, len(rows.places), len(cols.places), stored), pixel, name="resize")

    arguments = [relax.const(array) for array in (*down_arguments, *across_arguments)]
    # repeated positions may be read by what a convolution adds; weighted ones would be computed again for each reader
    pattern = FUSABLE if arguments else INJECTIVE
    return Stored(lowering.emit(compute, image.value, *arguments, hint="resize", pattern=pattern), image.channels, 4)


def _scaled(lowering: Lowering, node: Node, shape: tuple[int, int, int, int]) -> list[tuple[int, np.float32]] | None:
    """For rows and columns the output's size and the scale; None where other axes change, or it is not constant."""
    constants = [lowering.constant(name) if name else None for name in (*node.inputs[2:4], "", "")[:2]]
    given = [constant if constant is not None and constant.size else None for constant in constants]
    axes = [axis % 4 for axis in node.attrs.get("axes", range(4))]
    if (given[0] is None) == (given[1] is None):
        return None
    full = [(size, _F(1)) for size in shape]
    for number, axis in enumerate(axes):
        if given[0] is not None:
            scale = _F(given[0][number])
            full[axis] = (int(np.floor(scale * _F(shape[axis]))), scale)
        elif given[1] is not None:
            size = int(given[1][number])
            full[axis] = (size, _F(size) / _F(shape[axis]))
    if [size for size, _ in full[:2]] != list(shape[:2]) or any(scale != 1 for _, scale in full[:2]):
        return None
    return full[2:]


def taps(attrs: dict[str, Any], size: int, out: int, scale: np.float32) -> Taps:
    """What each of `out` positions reads of `size`; `attrs` are a Resize's."""
    where = _coordinates(attrs.get("coordinate_transformation_mode", "half_pixel"), size, out, scale)
    mode = attrs.get("mode", "nearest")
    if mode == "nearest":
        rounded = _ROUNDED[attrs.get("nearest_mode", "round_prefer_floor")](where)
        return Taps(np.clip(rounded, 0, size - 1).astype(np.int32)[:, None], None)
    if mode == "linear":
        where = np.clip(where, _F(0), _F(size - 1))
    first = np.floor(where)
    behind = where - first
    if mode == "linear":
        weights = np.stack([1 - behind, behind], axis=1)
        places = first[:, None] + np.arange(2)
    else:
        weights = _cubic(behind, float(attrs.get("cubic_coeff_a", -0.75)))
        places = first[:, None] + np.arange(-1, 3)
        if attrs.get("exclude_outside", 0):
            weights = weights * ((places >= 0) & (places < size))
            weights = weights / weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(places, 0, size - 1).astype(np.int32), weights.astype(np.float32))


def _coordinates(mode: str, size: int, out: int, scale: np.float32) -> Array:
    """Where each output position lies in the input, float32 [out]."""
    x = np.arange(out, dtype=np.float32)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * _F(size - 1) / _F(out - 1) if out > 1 else x
    if mode == "pytorch_half_pixel" and out == 1:
        return x
    if mode == "half_pixel_symmetric":
        offset = _F(size / 2) * (_F(1) - _F(out) / (scale * _F(size)))
        return offset + (x + _F(0.5)) / scale - _F(0.5)
    return (x + _F(0.5)) / scale - _F(0.5)


def _cubic(behind: Array, a: float) -> Array:
    """Weights of the four neighbours, float64 [out, 4]; Keys, Cubic Convolution Interpolation, 1981."""
    near = [((a + 2) * t - (a + 3)) * t * t + 1 for t in (behind.astype(np.float64), 1.0 - behind)]
    far = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in (1.0 + behind.astype(np.float64), 2.0 - behind)]
    return np.stack([far[0], *near, far[1]], axis=1)


def _read(taps: Taps) -> tuple[Any, list[Array]]:
    """How a kernel reads an axis' taps at a position, as pairs of a place and a weight, and the constants it reads."""
    times = taps.repeats
    if times is not None:
        return lambda _, position: [(position // times, None)], []
    count = taps.places.shape[1]
    if taps.weights is None:
        return lambda given, position: [(given[0][position, 0], None)], [taps.places]
    return (
        lambda given, position: [(given[0][position, i], given[1][position, i]) for i in range(count)],
        [taps.places, taps.weights],
    )


def _weighted(value: Any, left: Any, right: Any) -> Any:
    weights = [weight for weight in (left, right) if weight is not None]
    return value if not weights else value * (weights[0] if len(weights) == 1 else weights[0] * weights[1])
