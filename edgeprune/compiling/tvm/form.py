"""What `schedule.py` leaves open in the order of a convolution's loops, and the forms that tuning tries.

A `Form` is one choice. Without tuning it is the tile that arithmetic chose (`tile.py`), blocks of channels outermost.
Other forms can be faster where the arithmetic knows too little of a processor: `forms` lists them, those that it takes
for cheaper first. Convolutions with Winograd's way have no forms: they are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from edgeprune.compiling.tvm.convolution import ACCUMULATE, TILE
from edgeprune.compiling.tvm.tile import Factor, Tile, cycles_per_product
from edgeprune.compiling.tvm.winograd import PRODUCT


@dataclass(frozen=True)
class Form:
    """The order of a convolution's loops.

    Attributes:
        rows: Rows of the register tile; divides those that are computed.
        cols: Its columns, likewise.
        vectors: Its vectors of channels, likewise.
        rows_outside: Rows of tiles are outermost; else blocks of channels are.
        columns_unrolled: The columns of the kernel are written out.
    """

    rows: int
    cols: int
    vectors: int
    rows_outside: bool = False
    columns_unrolled: bool = False

    @classmethod
    def untuned(cls, schedule: Schedule, anchor: Any) -> Form:
        """The form that needs no tuning.

        Args:
            schedule: A kernel.
            anchor: The block of its multiply-adds.
        """
        rows, cols, vectors, *_ = (int(number) for number in schedule.get(anchor).annotations[TILE])
        return cls(rows, cols, vectors)


def forms(kernel: tirx.PrimFunc, factor: Factor, registers: int) -> list[Form]:
    """Every form of a fused kernel, the one that needs no tuning first, then cheaper tiles before dearer ones.

    Args:
        kernel: One that is not yet scheduled.
        factor: How the target multiplies vectors.
        registers: The target's vector registers.

    Returns:
        Nothing for a kernel that is no convolution, or has more than one, or is computed in Winograd's way.
    """
    schedule = Schedule(kernel)
    children = schedule.get_child_blocks(schedule.get_sblock("root"))
    blocks = {str(schedule.get(block).name_hint): block for block in children}
    anchors = [block for name, block in blocks.items() if name.startswith(ACCUMULATE)]
    if len(anchors) != 1 or PRODUCT in blocks:
        return []
    untuned = Form.untuned(schedule, anchors[0])
    extents = [int(schedule.get(loop).extent) for loop in schedule.get_loops(anchors[0])]
    height, width, channels, *kernel_extents = extents[1:]
    vectors = channels // int(schedule.get(anchors[0]).annotations[TILE][3])
    groups, orders, unrolled = _divisors(vectors), [False, True], [False, True]
    if factor is not Factor.MEMORY:  # written out for this order alone, and for the weights as they are packed
        groups, orders, unrolled = [untuned.vectors], [False], [False]
    if vectors == 1:
        orders = [False]
    if len(kernel_extents) < 2 or kernel_extents[1] == 1:
        unrolled = [False]
    tiles = [
        Tile(rows, cols, group)
        for rows, cols, group in product(_divisors(height), _divisors(width), groups)
        if (rows * cols + 1) * group < registers
    ]
    tiles.sort(key=lambda tile: cycles_per_product(tile, height, width))
    every = [Form(tile.rows, tile.cols, tile.vectors, *rest) for tile, *rest in product(tiles, orders, unrolled)]
    return [untuned, *(form for form in every if form != untuned)]


def _divisors(extent: int) -> list[int]:
    return [number for number in range(1, extent + 1) if extent % number == 0]
