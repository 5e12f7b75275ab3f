"""Whether a 3x3 convolution is computed by Winograd's way, and how it is cut. Start with `choose_blocks`.

Both ways are priced in cycles by the model of `tile.py`: the multiply-adds of vectors as their register tiles do them;
for Winograd's also the transforms, and what its weights, 4 times as many for m = 4, take to come from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from edgeprune.compiling.tvm.layout import stored_channels, vector_lanes
from edgeprune.compiling.tvm.tile import Reads, Tile, choose_tile, cycles_per_product, padded

PIXELS = (4, 2)  # m of the tiles considered; with 6 the error of a layer is 10 times that of the direct convolution's
# Cycles to transform one vector of channels at one point, there or back; bytes a cycle from memory, from the caches
# behind the second level, and from that. Measured with AVX-512 on one core: 56x56 pixels with 64 channels for the
# first, 7x7 with 512 for the second; the others are rounded from the processor's own.
_TRANSFORM_CYCLES = 6.0
_FROM_MEMORY, _FROM_AFAR, _FROM_L2 = 8.0, 16.0, 64.0
_UNKNOWN_L2 = 256 << 10
_SHARE_OF_L2 = 0.75  # for the points of a block; the rest is for weights
_MARGIN = 0.85  # of the direct way's cycles: less must be worth the larger weights and the larger error


@dataclass(frozen=True)
class Blocks:
    """How a Winograd convolution is cut.

    Attributes:
        pixels: m: an output tile has m x m pixels.
        tiles: Rows and columns of output tiles that are transformed together.
        number: Such blocks down and across the image.
        tile: Register tile of the matrix products: rows and columns of output tiles, vectors of channels.
        lanes: float32 lanes of those vectors.
    """

    pixels: int
    tiles: tuple[int, int]
    number: tuple[int, int]
    tile: Tile
    lanes: int

    def numbers(self) -> list[int]:
        """All of it, for the schedule."""
        return [self.pixels, *self.tiles, *self.number, self.tile.rows, self.tile.cols, self.tile.vectors, self.lanes]


@dataclass(frozen=True)
class Machine:
    """What the choice depends on: lanes and number of vector registers, bytes of second-level cache, threads."""

    lanes: int
    registers: int
    l2_bytes: int | None
    threads: int


@cache
def choose_blocks(size: tuple[int, int], channels: tuple[int, int], machine: Machine) -> Blocks | None:
    """The cheapest cut of a 3x3 convolution of stride and dilation 1, None where the direct way is cheaper.

    Args:
        size: Output rows and columns.
        channels: Input and output channels.
        machine: What it is computed on.

    >>> choose_blocks((56, 56), (64, 64), Machine(16, 32, 1 << 20, 1)).pixels
    4
    >>> choose_blocks((8, 8), (3, 16), Machine(16, 32, 1 << 20, 1))
    """
    given, made = channels
    if given < machine.lanes:
        return None  # the transforms of a few channels waste most of a vector
    vectors = stored_channels(made, machine.lanes) // vector_lanes(made, machine.lanes)
    reads = _reads(size[1], channels, 9, machine)
    tile = choose_tile(*size, vectors, machine.registers, reads)
    direct = 9 * size[0] * size[1] * given * vectors * cycles_per_product(tile, *size, reads)
    direct += 36 * given * stored_channels(made, machine.lanes) / _FROM_MEMORY
    cuts = [cut for pixels in PIXELS for cut in _cuts(size, pixels, vectors, channels, machine)]
    best = min(cuts, key=lambda cut: winograd_cycles(cut, size, channels, machine))
    return best if winograd_cycles(best, size, channels, machine) < _MARGIN * direct else None


def winograd_cycles(blocks: Blocks, size: tuple[int, int], channels: tuple[int, int], machine: Machine) -> float:
    """Cycles of one image by the model above; less is better."""
    given, made = channels
    points, tile, number = (blocks.pixels + 2) ** 2, blocks.tile, blocks.number[0] * blocks.number[1]
    tiles = blocks.tiles[0] * blocks.tiles[1]
    vectors_in = -(-given // vector_lanes(given, machine.lanes))
    vectors_out = stored_channels(made, machine.lanes) // blocks.lanes
    groups = vectors_out // tile.vectors
    reads = _reads(blocks.tiles[1], channels, 1, machine)
    product = points * tiles * given * vectors_out * cycles_per_product(tile, *blocks.tiles, reads)
    transforms = _TRANSFORM_CYCLES * points * tiles * (vectors_in + vectors_out)
    cycles = (product + transforms) * number * _imbalance(number if number > 1 else groups, machine.threads)
    limit = (machine.l2_bytes or _UNKNOWN_L2) * _SHARE_OF_L2
    weights = 4 * points * given * vectors_out * blocks.lanes
    held = 4 * points * tiles * (vectors_in * vector_lanes(given, machine.lanes) + tile.vectors * blocks.lanes)
    cycles += weights / _FROM_MEMORY + (number - 1) * weights / (_FROM_L2 if weights + held <= limit else _FROM_AFAR)
    if held > limit:
        cycles += number * (1 + groups) * held / _FROM_AFAR
    return cycles


def _reads(cols: int, channels: tuple[int, int], taps: int, machine: Machine) -> Reads:
    """How tiles lie in an image of so many columns, or in one point of so many columns of tiles."""
    given, made = channels
    pixel, lanes = 4 * stored_channels(given, machine.lanes), vector_lanes(made, machine.lanes)
    return Reads(cols * pixel, pixel, 4 * lanes * taps * given, lanes)


def _imbalance(parts: int, threads: int) -> float:
    """How many times longer the busiest thread works than all would if they shared evenly."""
    return padded(parts, threads) / parts


def _cuts(
    size: tuple[int, int], pixels: int, vectors: int, channels: tuple[int, int], machine: Machine
) -> list[Blocks]:
    """Blocks that divide the tiles of the image into equal parts, nearly."""
    down, across = (-(-extent // pixels) for extent in size)
    cuts = []
    for rows in {-(-down // parts) for parts in range(1, down + 1)}:
        for cols in {-(-across // parts) for parts in range(1, across + 1)}:
            tile = choose_tile(rows, cols, vectors, machine.registers, _reads(cols, channels, 1, machine))
            number = (-(-down // rows), -(-across // cols))
            lanes = vector_lanes(channels[1], machine.lanes)
            cuts.append(Blocks(pixels, (rows, cols), number, tile, lanes))
    return cuts
