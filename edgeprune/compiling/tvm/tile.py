"""Which part of a convolution's result is held in registers at once, chosen by arithmetic instead of by tuning.

A tile is `rows` x `cols` pixels x `vectors` vectors of channels. For each input channel and kernel position it loads
`vectors` weights, broadcasts `rows * cols` pixels, and does their product of multiply-adds. `choose_tile` minimises
cycles a multiply-add: the multiply-add units (2 a cycle), the loads (2 a cycle), and the latency of a chain of
multiply-adds (4 cycles) bound it; pixels computed beyond the image count as work. Where it is known how the tile lies
in memory (`Reads`), so does what the first-level cache can not hold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

_FMA_CYCLES = 4.0  # latency of a fused multiply-add; two start a cycle on the cores considered
# Loads compete with the multiply-adds even where they do not bound. Measured with AVX-512: without this term LeNet-5
# took 1.35 times and ResNet-20 1.17 times as long. Its size is a choice: 0.01 to 1 give the quickstart's networks the
# same tiles with 32 registers, 0.1 to 1 with 16.
_LOAD_WEIGHT = 0.1
# For a border that exists only because the tile does not divide the image. A choice, not measured: on the same networks
# 0 to 0.2 give the same tiles with 32 registers, 0.005 to 0.02 with 16.
_COPY_PENALTY = 0.02
# The first-level cache of nearly all processors: 32 KB, lines of 64 bytes. Eight lines that are 4 KB apart fit, whether
# it has 64 sets of 8 ways, 128 of 4 or 256 of 2.
_L1_BYTES, _LINE_BYTES, _SETS, _WAYS = 32 << 10, 64, 64, 8
# For each pixel that does not stay there. Measured with AVX-512: with 14x14 pixels of 1,024 channels a multiply-add of
# 23 vectors of filters, in tiles of 28 pixels and one vector, took 4.8 times as long as of 24, in tiles of 4 and 6.
_L2_CYCLES = 2.3
# Weights that do not stay there, float32 lanes from the second level per multiply-add that could start. Measured with
# AVX-512: tiles of 2 pixels ran at half of the speed that tiles of 4 had.
_L2_LANES = 8.0


class Factor(Enum):
    """Where a multiply-add of vectors takes the number from that a whole vector of weights is multiplied by."""

    MEMORY = "memory"  # x86: a number is spread over the lanes while it is read
    LANE = "lane"  # AArch64: one lane of another vector
    SPREAD = "spread"  # armv7: a vector that the number was spread over before

    @classmethod
    def of(cls, architecture: str) -> Factor:
        """How processors of an architecture do it, by the first word of a triple."""
        return {"aarch64": cls.LANE, "armv7l": cls.SPREAD}.get(architecture, cls.MEMORY)


@dataclass(frozen=True)
class Tile:
    """Register tile: pixels down, pixels across, vectors of channels."""

    rows: int
    cols: int
    vectors: int


@dataclass(frozen=True)
class Reads:
    """How a convolution's tile lies in memory.

    Attributes:
        row_bytes: From what one pixel of the result reads to what the pixel below it reads.
        col_bytes: The same for its neighbour on the right.
        weight_bytes: All weights of one vector of filters.
        lanes: float32 lanes of a vector.
    """

    row_bytes: int
    col_bytes: int
    weight_bytes: int
    lanes: int

    def crowds(self, tile: Tile) -> bool:
        """Whether pixels of the tile put each other out of the first-level cache."""
        starts = {r * self.row_bytes + c * self.col_bytes for r in range(tile.rows) for c in range(tile.cols)}
        lines = {start // _LINE_BYTES for start in starts}
        return max(Counter(line % _SETS for line in lines).values()) > _WAYS

    def overflows(self, tile: Tile) -> bool:
        """Whether the weights of the tile take more than half of that cache."""
        return tile.vectors * self.weight_bytes > _L1_BYTES // 2


def choose_tile(height: int, width: int, vectors: int, registers: int, reads: Reads | None = None) -> Tile:
    """The cheapest register tile for an output of `height` x `width` pixels and `vectors` vectors of channels.

    Args:
        height: Output rows.
        width: Output columns.
        vectors: Vectors of output channels; the tile's number divides it.
        registers: Vector registers of the target.
        reads: How the tile lies in memory, if that is known.

    >>> choose_tile(32, 32, 1, 32)
    Tile(rows=1, cols=16, vectors=1)
    >>> choose_tile(14, 14, 23, 32, Reads(row_bytes=14 << 12, col_bytes=1 << 12, weight_bytes=1 << 16, lanes=16))
    Tile(rows=1, cols=7, vectors=1)
    """
    candidates = [
        Tile(rows, cols, group)
        for group in range(1, min(vectors, registers // 2) + 1)
        if vectors % group == 0
        for cols in range(1, min(width, (registers - 2 - group) // group) + 1)
        for rows in range(1, min(height, (registers - 2 - group) // group // cols) + 1)
    ]
    return min(candidates, key=lambda tile: (cycles_per_product(tile, height, width, reads), -tile.vectors, tile.rows))


def cycles_per_product(tile: Tile, height: int, width: int, reads: Reads | None = None) -> float:
    """Cycles that a multiply-add of one vector takes with this tile, by the model above; less is better."""
    pixels = tile.rows * tile.cols
    products = pixels * tile.vectors
    loads = (pixels + tile.vectors) / products
    cycles = max(0.5, loads / 2, _FMA_CYCLES / products) + _LOAD_WEIGHT * loads
    if reads is not None and reads.overflows(tile):
        cycles = max(cycles, reads.lanes / (_L2_LANES * pixels))
    if reads is not None and reads.crowds(tile):
        cycles += _L2_CYCLES / tile.vectors
    computed = padded(height, tile.rows) * padded(width, tile.cols)
    return cycles * computed / (height * width) + (_COPY_PENALTY if computed > height * width else 0.0)


def padded(extent: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `extent`."""
    return -(-extent // step) * step
