"""In which order a Winograd convolution computes: block of tiles by block of tiles, so that its points stay in cache.

In each block the input is transformed once; then, for each register tile's width of output channels, all points are
multiplied and transformed back, and what was fused behind works on each tile while it is at hand. One block alone is
shared between threads by its rows of tiles and its channels, several are shared as they are.
"""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule

from edgeprune.compiling.tvm.convolution import BORDER
from edgeprune.compiling.tvm.winograd import BLOCKS, COLUMNS, IMAGE, INPUT, PRODUCT, ROWS


def schedule_winograd(schedule: Schedule, named: dict[str, Any], last: Any, *, parallel: bool) -> None:
    """Schedule a kernel of `convolve_winograd`.

    Args:
        schedule: Of the kernel; everything elementwise but `last` is inlined.
        named: Those of its blocks that are among `STAGES`, by name.
        last: The block that writes the result.
        parallel: Whether blocks are shared between threads.
    """
    numbers = [int(part) for part in schedule.get(named[PRODUCT]).annotations[BLOCKS]]
    pixels, rows, cols, down, across, *tile, lanes = numbers
    single = down * across == 1
    image, h, v, o = schedule.get_loops(named[IMAGE])
    block_h, row, i = schedule.split(h, [down, rows, pixels])
    block_v, col, j = schedule.split(v, [across, cols, pixels])
    group, vector, lane = schedule.split(o, [None, tile[2], lanes])
    schedule.reorder(image, block_h, block_v, group, row, col, vector, i, j, lane)
    schedule.reverse_compute_at(last, vector, preserve_unit_loops=True)
    schedule.compute_at(named[COLUMNS], vector, preserve_unit_loops=True)
    schedule.compute_at(named[PRODUCT], group, preserve_unit_loops=True)
    if single:
        outer = [image, block_h, block_v, group]
    else:
        outer = [image, block_h, block_v]
        schedule.compute_at(named[INPUT], block_v, preserve_unit_loops=True)
    _transform(schedule, named, lanes)
    if BORDER in named:
        if not single:
            schedule.compute_at(named[BORDER], block_v, preserve_unit_loops=True)
        _, lane = schedule.split(schedule.get_loops(named[BORDER])[-1], [None, lanes])
        schedule.vectorize(lane)
    if single and parallel:
        schedule.parallel(schedule.fuse(*schedule.get_loops(named[INPUT])[:-4]))
    _multiply(schedule, named[PRODUCT], tile, lanes)
    _written_out(schedule, named[COLUMNS], 0)
    _written_out(schedule, named[IMAGE], 1)
    _written_out(schedule, last, 1)
    outermost = schedule.fuse(*outer)
    if parallel:
        schedule.parallel(outermost)


def _transform(schedule: Schedule, named: dict[str, Any], lanes: int) -> None:
    """The way of the input to its points: tile by tile, vector by vector of channels."""
    p, q, row, col, channel = schedule.get_loops(named[INPUT])[-5:]
    vector, lane = schedule.split(channel, [None, lanes])
    schedule.reorder(row, col, vector, p, q, lane)
    schedule.compute_at(named[ROWS], vector, preserve_unit_loops=True)
    _written_out(schedule, named[ROWS], 0)
    _written_out(schedule, named[INPUT], 1)


def _multiply(schedule: Schedule, product: Any, tile: list[int], lanes: int) -> None:
    """All points of a block: register tile by register tile of one point's matrix product."""
    held = schedule.cache_write(product, 0, "local")
    p, q, row, col, channel, reduction = schedule.get_loops(product)[-6:]
    row, row_in = schedule.split(row, [None, tile[0]])
    col, col_in = schedule.split(col, [None, tile[1]])
    vector, lane = schedule.split(channel, [tile[2], lanes])
    schedule.reorder(p, q, row, col, reduction, row_in, col_in, vector, lane)
    schedule.reverse_compute_at(held, col, preserve_unit_loops=True)
    for loop in (row_in, col_in, vector):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    *pixels, channel = schedule.get_loops(held)[-3:]
    vector, lane = schedule.split(channel, [None, lanes])
    for loop in (*pixels, vector):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.decompose_reduction(product, reduction)


def _written_out(schedule: Schedule, block: Any, unrolled: int) -> None:
    """One of a block's two loops over points or pixels is unrolled, since what is computed depends on it."""
    *loops, lane = schedule.get_loops(block)[-3:]
    chosen = loops.pop(unrolled)
    schedule.reorder(*loops, chosen, lane)
    schedule.unroll(chosen)
    schedule.vectorize(lane)
