"""3x3 convolutions with fewer multiplications: Winograd's minimal filtering, F(m x m, 3 x 3).

An output tile of m x m pixels is A^T [U * (B^T d B)] A: the (m + 2) x (m + 2) input pixels `d` are transformed,
multiplied point by point with transformed weights `U`, and transformed back. Over all channels and tiles each of the
(m + 2)^2 points is a matrix product; together they take 9 m^2 / (m + 2)^2 times fewer multiply-adds than the
convolution, 4 times for m = 4. Start with `convolve_winograd`; whether it pays is settled in `winograd_choice.py`, in
which order it runs in `winograd_schedule.py`.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016; the transforms for any points are Toom and
Cook's. The points here are 0, infinity and pairs +-a: what is even and what is odd in a pair is computed once for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgeprune.compiling.tvm.convolution import BORDER, FUSABLE, RESULT, Window, with_border
from edgeprune.compiling.tvm.graph import Array
from edgeprune.compiling.tvm.layout import Stored, stored_channels
from edgeprune.compiling.tvm.winograd_choice import Blocks, Machine, choose_blocks

# The pairs of points for each m. Chosen by the error of random layers: with these, F(4 x 4) differs from the exact
# result twice as much as the direct convolution, with the usual 1 and 2 four times.
PAIRS = {2: (1.0,), 4: (0.75, 1.5)}
ROWS, INPUT, PRODUCT, COLUMNS, IMAGE = (f"winograd_{part}" for part in ("rows", "input", "product", "columns", "image"))
STAGES = (BORDER, ROWS, INPUT, PRODUCT, COLUMNS, IMAGE)  # blocks of a kernel that are computed in passes of their own
BLOCKS = "edgeprune.winograd"  # annotation of PRODUCT: a `Blocks` as numbers


def winograd_blocks(image: Stored, weight: Array, window: Window, machine: Machine) -> Blocks | None:
    """How a dense convolution is cut for Winograd's way; None where that cannot be, or the direct way is cheaper."""
    if window.kernel != (3, 3) or list(window.strides) != [1, 1] or list(window.dilation) != [1, 1] or image.rank != 4:
        return None
    return choose_blocks(window.output(*image.shape[1:3]), (weight.shape[1], len(weight)), machine)


def convolve_winograd(
    builder: relax.BlockBuilder, image: Stored, weight: Array, window: Window, lanes: int, blocks: Blocks
) -> Stored:
    """Emit a dense 3x3 convolution of stride and dilation 1.

    Args:
        builder: Where to emit.
        image: Input, stored form of float32 [N, I, H, W].
        weight: float32 [O, I, 3, 3].
        window: Padding.
        lanes: float32 lanes of the target's vector.
        blocks: How it is cut.
    """
    _, height, width, _ = image.shape
    size = window.output(height, width)
    packed = pack_transformed(weight, stored_channels(len(weight), lanes), blocks)

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        return _compute(x, w, window, blocks, size)

    value = builder.emit_te(
        compute, image.value, relax.const(packed), primfunc_name_hint="winograd", primfunc_attrs={"op_pattern": FUSABLE}
    )
    return Stored(value, len(weight), image.rank)


def pack_transformed(weight: Array, stored: int, blocks: Blocks) -> Array:
    """float32 [O, I, 3, 3] as float32 [stored / B, (m + 2)^2, I, B]: G g G^T, computed in float64."""
    out, channels = weight.shape[:2]
    matrix = weight_transform(blocks.pixels)
    points = (matrix @ weight.astype(np.float64) @ matrix.T).reshape(out, channels, -1)
    full = np.zeros((stored, channels, points.shape[2]), np.float32)
    full[:out] = points
    block = blocks.tile.vectors * blocks.lanes
    return np.ascontiguousarray(full.reshape(stored // block, block, channels, -1).transpose(0, 3, 2, 1))


def weight_transform(pixels: int) -> Array:
    """G, float64 [m + 2, 3]: the value of a polynomial of three coefficients at each point, scaled for `to_points`."""
    pairs = PAIRS[pixels]
    points = np.array([0.0, *(sign * a for a in pairs for sign in (1, -1))])
    scale = [np.prod([point - other for other in points if other != point]) for point in points]
    return np.vstack([points[:, None] ** np.arange(3) / np.array(scale)[:, None], [0.0, 0.0, 1.0]])


def to_points(values: Sequence[Any]) -> list[Any]:
    """B^T d for m + 2 values of any kind: at 0, at each pair +a and -a, at infinity."""
    pairs = PAIRS[len(values) - 2]
    whole = _product_of_squares(pairs)
    result = [_sum(whole, values[0::2])]
    for a in pairs:
        rest = _product_of_squares([b for b in pairs if b != a])
        even, odd = _sum(rest, values[2::2]), _sum([a * c for c in rest], values[1::2])
        result += [even + odd, even - odd]
    return [*result, _sum(whole, values[1::2])]


def from_points(values: Sequence[Any]) -> list[Any]:
    """A^T m for m + 2 values of any kind: m pixels."""
    pairs, pixels = PAIRS[len(values) - 2], len(values) - 2
    sums = [values[i] + values[i + 1] for i in range(1, len(values) - 1, 2)]
    differences = [values[i] - values[i + 1] for i in range(1, len(values) - 1, 2)]
    result = [_sum([a**i for a in pairs], differences if i % 2 else sums) for i in range(pixels)]
    result[0], result[-1] = values[0] + result[0], result[-1] + values[-1]
    return result


def _product_of_squares(pairs: Sequence[float]) -> list[float]:
    """The coefficients of the product of x - a^2, lowest first."""
    return [float(c) for c in np.atleast_1d(np.poly([a * a for a in pairs]))[::-1]]


def _sum(factors: Sequence[float], values: Sequence[Any]) -> Any:
    """Factors times values, as many as there are factors."""
    pairs = zip(factors, values, strict=False)
    return reduce(add, [value if factor == 1 else value * factor for factor, value in pairs])


def _one_of(index: Any, values: Sequence[Any]) -> Any:
    """The value of that number; the loop over it is unrolled, so nothing is chosen at run time."""
    chosen = values[-1]
    for number in reversed(range(len(values) - 1)):
        chosen = tirx.Select(index == number, values[number], chosen)
    return chosen


def _compute(x: te.Tensor, w: te.Tensor, window: Window, blocks: Blocks, size: tuple[int, int]) -> te.Tensor:
    batch, stored = x.shape[0], x.shape[3]
    groups, _, channels, block = (int(extent) for extent in w.shape)
    pixels, edge, (rows, cols), (down, across) = blocks.pixels, blocks.pixels + 2, blocks.tiles, blocks.number
    reach = (down * rows * pixels + 2, across * cols * pixels + 2)
    source = with_border(x, window, reach, 0.0)
    tiles = (batch, down, across)

    def row_points(n: Any, d: Any, a: Any, r: Any, c: Any, point: Any, col: Any, k: Any) -> Any:
        top, left = (d * rows + r) * pixels, (a * cols + c) * pixels
        return _one_of(point, to_points([source[n, top + row, left + col, k] for row in range(edge)]))

    by_row = te.compute((*tiles, rows, cols, edge, edge, stored), row_points, name=ROWS)

    def all_points(n: Any, d: Any, a: Any, p: Any, q: Any, r: Any, c: Any, k: Any) -> Any:
        return _one_of(q, to_points([by_row[n, d, a, r, c, p, col, k] for col in range(edge)]))

    given = te.compute((*tiles, edge, edge, rows, cols, stored), all_points, name=INPUT)
    ic = te.reduce_axis((0, channels), "ic")
    product = te.compute(
        (*tiles, groups, edge, edge, rows, cols, block),
        lambda n, d, a, g, p, q, r, c, o: te.sum(given[n, d, a, p, q, r, c, ic] * w[g, p * edge + q, ic, o], axis=[ic]),
        name=PRODUCT,
        attrs={BLOCKS: blocks.numbers()},
    )

    def column_pixels(n: Any, d: Any, a: Any, g: Any, r: Any, c: Any, i: Any, q: Any, o: Any) -> Any:
        return _one_of(i, from_points([product[n, d, a, g, p, q, r, c, o] for p in range(edge)]))

    columns = te.compute((*tiles, groups, rows, cols, pixels, edge, block), column_pixels, name=COLUMNS)

    def pixel(n: Any, h: Any, v: Any, o: Any) -> Any:
        at = (h // (rows * pixels), v // (cols * pixels), o // block, h // pixels % rows, v // pixels % cols)
        return _one_of(v % pixels, from_points([columns[n, *at, h % pixels, q, o % block] for q in range(edge)]))

    shape = (batch, down * rows * pixels, across * cols * pixels, groups * block)
    full = te.compute(shape, pixel, name=IMAGE)
    return te.compute((batch, *size, groups * block), lambda n, h, v, o: full[n, h, v, o], name=RESULT)
