"""In which order the kernels compute: register tiles for convolutions, whole vectors for everything else.

`schedule_module` visits each kernel that is left after fusion. One with a convolution goes to `_convolution`: blocks of
channels outside, then tiles of pixels, the reduction, and inside the tile everything unrolled and vectorised; what was
fused behind works on the tile while it is in registers. One with Winograd's way goes to `winograd_schedule.py`. Every
other kernel goes to `_pixelwise`: one loop over pixels, channels in vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from edgeprune.compiling.tvm.convolution import ACCUMULATE, BORDER, GROUP, TILE
from edgeprune.compiling.tvm.form import Form
from edgeprune.compiling.tvm.gather import SCHEDULED, in_parallel
from edgeprune.compiling.tvm.multiply import written_out
from edgeprune.compiling.tvm.tile import Factor
from edgeprune.compiling.tvm.transposed import STEPS
from edgeprune.compiling.tvm.winograd import PRODUCT, STAGES
from edgeprune.compiling.tvm.winograd_schedule import schedule_winograd

_REDUCTION = 2  # tirx.IterVar.CommReduce
_UNROLLED = 64  # the longest loop that is written out


def schedule_module(
    module: tvm.IRModule, lanes: int, factor: Factor, *, parallel: bool, forms: Mapping[str, Form] | None = None
) -> tvm.IRModule:
    """Schedule every kernel of a fused module.

    Args:
        module: Relax functions and unscheduled kernels.
        lanes: float32 lanes of the target's vector.
        factor: How the target multiplies vectors.
        parallel: Whether outer loops are shared between threads.
        forms: What tuning chose, by the names of kernels.
    """
    chosen = forms or {}
    scheduled = tvm.IRModule(dict(module.functions_items()), attrs=module.attrs)
    for name, kernel in module.functions_items():
        if not isinstance(kernel, tirx.PrimFunc):
            continue
        if not (kernel.attrs and SCHEDULED in kernel.attrs):
            form = chosen.get(str(name.name_hint))
            scheduled.update_func(name, schedule_kernel(kernel, lanes, factor, parallel=parallel, form=form))
        elif parallel:
            scheduled.update_func(name, in_parallel(kernel))
    return scheduled


def schedule_kernel(
    kernel: tirx.PrimFunc, lanes: int, factor: Factor, *, parallel: bool, form: Form | None = None
) -> tirx.PrimFunc:
    """Schedule one kernel; arguments as for `schedule_module`.

    Args:
        kernel: One that is not yet scheduled.
        lanes: float32 lanes of the target's vector.
        factor: How the target multiplies vectors.
        parallel: Whether outer loops are shared between threads.
        form: One of its `forms`; None: the one that needs no tuning.
    """
    schedule = Schedule(kernel, debug_mask=0, enable_check=False)
    anchor = next((block for block in _blocks(schedule) if _name(schedule, block).startswith(ACCUMULATE)), None)
    if any(_name(schedule, block) == PRODUCT for block in _blocks(schedule)):
        _winograd(schedule, parallel=parallel)
    elif anchor is not None:
        form = form or Form.untuned(schedule, anchor)
        return _convolution(schedule, anchor, form, lanes, factor, parallel=parallel)
    else:
        _pixelwise(schedule, lanes, parallel=parallel)
    return schedule.mod["main"]


def _convolution(
    schedule: Schedule, anchor: Any, form: Form, lanes: int, factor: Factor, *, parallel: bool
) -> tirx.PrimFunc:
    blocks = _blocks(schedule)
    last, borders = blocks[-1], []
    for block in blocks[:-1]:
        name = _name(schedule, block)
        if name.startswith(BORDER):
            borders.append(block)
        elif not name.startswith(ACCUMULATE):
            schedule.compute_inline(block)
    width, *steps = (int(part) for part in schedule.get(anchor).annotations[TILE][3:])
    schedule.unannotate(anchor, TILE)
    schedule.annotate(anchor, TILE, [form.rows, form.cols, form.vectors, width, *steps])
    image, row, col, channel, *reduction = schedule.get_loops(anchor)
    channel_block, channel_in = schedule.split(channel, [None, form.vectors * width])
    row_tile, row_in = schedule.split(row, [None, form.rows])
    col_tile, col_in = schedule.split(col, [None, form.cols])
    outside = [image, row_tile, channel_block] if form.rows_outside else [channel_block, image, row_tile]
    schedule.reorder(*outside, col_tile, *reduction, row_in, col_in, channel_in)
    outer = schedule.fuse(*outside)
    schedule.reverse_compute_at(last, col_tile)
    vector, lane = schedule.split(channel_in, [None, width])
    for loop in (row_in, col_in, vector, *(reduction[1:2] if form.columns_unrolled else [])):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    if parallel:
        schedule.parallel(outer)
    schedule.decompose_reduction(anchor, reduction[0])
    *pixels, channel = schedule.get_loops(last)[2:]
    vector, lane = schedule.split(channel, [None, width])
    schedule.vectorize(lane)
    for loop in (*pixels, vector):
        schedule.unroll(loop)
    for border in borders:
        _copy(schedule, border, lanes, parallel=parallel)
    plain = factor is Factor.MEMORY and not _holds_groups(schedule, anchor, width)
    return schedule.mod["main"] if plain else written_out(schedule, anchor, factor)


def _holds_groups(schedule: Schedule, anchor: Any, lanes: int) -> bool:
    """Whether a vector of filters holds several groups, whose pixels must be put in place."""
    group = schedule.get(anchor).annotations.get(GROUP)
    return group is not None and int(group[1]) % lanes != 0


def _winograd(schedule: Schedule, *, parallel: bool) -> None:
    *blocks, last = _blocks(schedule)
    named = {}
    for block in blocks:
        if _name(schedule, block) in STAGES:
            named[_name(schedule, block)] = block
        else:
            schedule.compute_inline(block)
    schedule_winograd(schedule, named, last, parallel=parallel)


def _copy(schedule: Schedule, block: Any, lanes: int, *, parallel: bool) -> None:
    """An elementwise block: pixels in one loop, channels in vectors."""
    *pixels, channel = schedule.get_loops(block)
    if not pixels:
        pixels = [schedule.split(channel, [1, None])[0]]
        channel = schedule.get_loops(block)[-1]
    width = _vector(_extent(schedule, channel), lanes)
    if width > 1:
        _, lane = schedule.split(channel, [None, width])
        schedule.vectorize(lane)
    if parallel:
        schedule.parallel(schedule.fuse(*pixels[:2]))


def _pixelwise(schedule: Schedule, lanes: int, *, parallel: bool) -> None:
    _write_out_steps(schedule)
    for block in _blocks(schedule)[:-1]:
        if not _is_reduction(schedule, block):
            schedule.compute_inline(block)
    for block in _blocks(schedule):
        if not _is_reduction(schedule, block):
            if schedule.get_loops(block):
                _copy(schedule, block, lanes, parallel=parallel)
        else:
            _reduce(schedule, block, lanes, parallel=parallel)


def _write_out_steps(schedule: Schedule) -> None:
    """What a kernel does for rows and columns modulo some number is settled before it runs."""
    blocks = _blocks(schedule)
    steps = [schedule.get(block).annotations.get(STEPS) for block in blocks]
    for down, across in (given for given in steps if given is not None):
        loops = schedule.get_loops(blocks[-1])
        if len(loops) == 4:
            for loop, step in zip(loops[1:3], (down, across), strict=True):
                _, inner = schedule.split(loop, [None, step])
                schedule.unroll(inner)


def _reduce(schedule: Schedule, block: Any, lanes: int, *, parallel: bool) -> None:
    """A reduction: pixels outside, channels in vectors, the window inside."""
    loops, kinds = schedule.get_loops(block), [int(var.iter_type) for var in schedule.get(block).iter_vars]
    if len(loops) != len(kinds):
        return
    window = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCTION]
    pixels = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _REDUCTION]
    if not pixels:
        return
    lane = []
    width = _vector(_extent(schedule, pixels[-1]), lanes)
    if width > 1 and kinds[-1] == _REDUCTION:
        pixels[-1], inner = schedule.split(pixels[-1], [None, width])
        lane = [inner]
    schedule.reorder(*pixels, *window, *lane)
    outer = schedule.fuse(*pixels)
    if parallel:
        schedule.parallel(outer)
    for loop in lane:
        schedule.vectorize(loop)
    if math.prod(_extent(schedule, loop) for loop in window) <= _UNROLLED:
        for loop in window:
            schedule.unroll(loop)
    schedule.decompose_reduction(block, window[0])


def _blocks(schedule: Schedule) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _name(schedule: Schedule, block: Any) -> str:
    return str(schedule.get(block).name_hint)


def _extent(schedule: Schedule, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _is_reduction(schedule: Schedule, block: Any) -> bool:
    return any(int(var.iter_type) == _REDUCTION for var in schedule.get(block).iter_vars)


def _vector(extent: int, lanes: int) -> int:
    """The widest vector that divides the extent."""
    while extent % lanes:
        lanes //= 2
    return lanes
