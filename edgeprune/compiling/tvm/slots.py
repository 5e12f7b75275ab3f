"""Where the filters of a convolution lie in its register tiles when its channels are spread over those of a wider sum.

An index-addition wants a convolution's channels scattered over the vectors of its result. The order in which filters
are computed is free, so the vectors of the result are packed into the blocks of channels that one register tile holds:
all filters that a vector of the result takes are then in registers when it is written, and constant shuffles put them
in place. Start with `choose_slots`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.compiling.tvm.channels import FILL
from edgeprune.compiling.tvm.graph import Array
from edgeprune.compiling.tvm.layout import vector_lanes
from edgeprune.compiling.tvm.tile import Reads, Tile, choose_tile, cycles_per_product

# To put the channels of one vector of the result in place: one or two instructions. A choice: 0 to 4 give the same
# slots on ResNet-18, -20, -50 and -56 with half of each convolution's filters removed at random, vectors of 4 to 16.
_SHUFFLE_CYCLES = 1.0


@dataclass(frozen=True)
class Slots:
    """An order of filters.

    Attributes:
        tile: Register tile, of vectors of so many `lanes`.
        lanes: Those of the result, or fewer if all filters fit into a narrower vector.
        filters: int [blocks, slots of a block]: the filter in each slot, FILL for none.
        outputs: For each block, the vectors of the result that it writes.
        places: int [channels of the result]: the slot within its block, FILL for none.
    """

    tile: Tile
    lanes: int
    filters: Array
    outputs: tuple[tuple[int, ...], ...]
    places: Array


def choose_slots(
    spread: Array, lanes: int, size: tuple[int, int], reduction: int, registers: int, reads: Reads | None = None
) -> Slots:
    """The cheapest order: as few vectors of filters as can be packed, or one for each vector of the result.

    Args:
        spread: int [channels of the result]: the filter that each takes, none twice, or FILL. Whole vectors.
        lanes: Lanes of a vector.
        size: Rows and columns of the result.
        reduction: Multiply-adds of one output value.
        registers: Vector registers of the target.
        reads: How the convolution's tiles lie in memory, if that is known.

    Raises:
        ValueError: no channel takes a filter.

    >>> choose_slots(np.array([0, FILL, FILL, FILL, FILL, 1, 2, 3]), 4, (8, 8), 900, 16).filters.tolist()
    [[0, 1, 2, 3]]
    """
    counts = (spread.reshape(-1, lanes) != FILL).sum(1)
    used = np.flatnonzero(counts)
    least, best, cheapest = -(-int(counts.sum()) // lanes), None, np.inf
    narrow = vector_lanes(int(counts.sum()), lanes)
    if len(used) and narrow < lanes:
        return _in_order(spread, lanes, choose_tile(*size, 1, registers, reads), [list(range(len(counts)))], narrow)
    for vectors in range(least, len(used) + 1):
        tile = choose_tile(*size, vectors, registers, reads)
        shuffled = vectors < len(used)
        cycles = vectors * reduction * cycles_per_product(tile, *size, reads) + shuffled * len(used) * _SHUFFLE_CYCLES
        if cycles >= cheapest:
            continue
        packed = _pack(counts, vectors // tile.vectors, tile.vectors * (lanes if shuffled else 1), shuffled=shuffled)
        if packed is not None:
            best, cheapest = _in_order(spread, lanes, tile, packed, lanes, shuffled=shuffled), cycles
    if best is None:
        raise ValueError("no channel of the sum takes a filter of this convolution")
    return best


def _pack(counts: Array, blocks: int, capacity: int, *, shuffled: bool) -> list[list[int]] | None:
    """The vectors of the result that each block writes, or None: first fit, the fullest first."""
    weights = counts if shuffled else (counts > 0).astype(np.int64)
    packed: list[list[int]] = [[] for _ in range(blocks)]
    free = [capacity] * blocks
    for vector in np.argsort(-weights, kind="stable").tolist():
        weight = int(weights[vector])
        fits = [block for block in range(blocks) if free[block] >= weight]
        if not fits:
            return None
        block = fits[0] if weight else min(fits, key=lambda block: len(packed[block]))
        packed[block].append(vector)
        free[block] -= weight
    return [sorted(block) for block in packed]


def _in_order(
    spread: Array, lanes: int, tile: Tile, packed: list[list[int]], held_lanes: int, *, shuffled: bool = True
) -> Slots:
    """Filters in the order of the channels that take them; unshuffled ones in the lane of their channel."""
    filters = np.full((len(packed), tile.vectors * held_lanes), FILL, dtype=np.int64)
    places = np.full(len(spread), FILL, dtype=np.int64)
    for block, vectors in enumerate(packed):
        slot = 0
        for vector in vectors:
            channels = np.arange(vector * lanes, (vector + 1) * lanes)
            taken = channels[spread[channels] != FILL]
            if not len(taken):
                continue
            slots = slot + (np.arange(len(taken)) if shuffled else taken % lanes)
            filters[block, slots], places[taken] = spread[taken], slots
            slot += len(taken) if shuffled else lanes
    return Slots(tile, held_lanes, filters, tuple(map(tuple, packed)), places)
