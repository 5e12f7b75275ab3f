"""The innermost code of a convolution: the multiply-adds of one register tile, as the target's instructions want them.

A vector of weights is multiplied by one number of a pixel, and processors differ in where they take that number from.
`Factor` names the ways, `reduction` writes the loops: kernel positions, then groups of channels, each written out for
the whole tile. It is handed functions that say where sums, pixels and weights lie, so that every kernel with a register
tile can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize, Schedule

from edgeprune.compiling.tvm.convolution import ACCUMULATE, GROUP, TILE
from edgeprune.compiling.tvm.gather import lanes_from, loop, sequence, shuffled
from edgeprune.compiling.tvm.grouped import first_channel
from edgeprune.compiling.tvm.tile import Factor, Tile

_GROUP = 4  # channels of a pixel that are loaded as one vector to multiply by its lanes
# Multiply-adds of a loop's body on AArch64; with 16 a turn, ResNet-20 executes a third more instructions. On armv7 a
# body of one group of channels is as good as one of two.
_WRITTEN_OUT = 256


@dataclass(frozen=True)
class Operands:
    """Where the numbers of a tile lie.

    Attributes:
        sums: Row, column and vector within the tile -> buffer and index of a vector of sums.
        pixel: Kernel row, kernel column, row and column within the tile, channels -> a value of that many lanes.
        weight: Kernel row, kernel column, input channel, vector -> a vector of weights.
    """

    sums: Callable[[Any, Any, Any], tuple[Any, list[Any]]]
    pixel: Callable[[Any, Any, Any, Any, Any], Any]
    weight: Callable[[Any, Any, Any, Any], Any]


def reduction(
    operands: Operands, tile: Tile, lanes: int, kernel: tuple[int, int], channels: int, factor: Factor
) -> tirx.Stmt:
    """All multiply-adds of one tile.

    Args:
        operands: Where the numbers lie.
        tile: Register tile.
        lanes: float32 lanes of its vectors.
        kernel: Rows and columns of the kernel.
        channels: Input channels.
        factor: How the target multiplies.
    """
    kh, kw, ic = (tirx.Var(name, "int32") for name in ("kh", "kw", "ic"))
    step = _step(tile, channels, factor)
    whole = channels - channels % step

    def products(channel: Any, pixel: Callable[[Any, Any], Any]) -> tirx.Stmt:
        def product(row: Any, col: Any, vector: Any, total: Any) -> Any:
            weight = operands.weight(kh, kw, channel, vector)
            return multiply_add(pixel(row, col), weight, total, lanes, factor)

        return _whole_tile(operands, tile, product)

    def written(first: Any, count: int) -> list[tirx.Stmt]:
        return [products(*given) for given in _factors(operands, (kh, kw), first, count, lanes, factor)]

    turns = [loop(ic, whole // step, sequence(written(ic * step, step)))] if whole > step else written(0, whole)
    return loop(kh, kernel[0], loop(kw, kernel[1], sequence([*turns, *written(whole, channels - whole)])))


def depthwise_reduction(
    operands: Operands, tile: Tile, lanes: int, kernel: tuple[int, int], factor: Factor
) -> tirx.Stmt:
    """All multiply-adds of one tile where each channel has its own kernel; arguments as for `reduction`.

    `operands.pixel` gets a vector of the tile in place of channels. A small kernel is written out, so that a pixel that
    several of its positions want is loaded once.
    """
    kh, kw = (tirx.Var(name, "int32") for name in ("kh", "kw"))

    def product(row: Any, col: Any, vector: Any, total: Any) -> Any:
        pixel, weight = operands.pixel(kh, kw, row, col, vector), operands.weight(kh, kw, [], vector)
        return multiply_add(pixel, weight, total, lanes, factor)

    products = kernel[0] * kernel[1] * tile.rows * tile.cols * tile.vectors
    kind = tirx.ForKind.UNROLLED if products <= _WRITTEN_OUT else tirx.ForKind.SERIAL
    return tirx.For(kh, 0, kernel[0], kind, tirx.For(kw, 0, kernel[1], kind, _whole_tile(operands, tile, product)))


def narrow_reduction(
    operands: Operands, tile: Tile, lanes: int, kernel: tuple[int, int], group: tuple[int, int], factor: Factor
) -> tirx.Stmt:
    """All multiply-adds of one tile where a vector of filters holds several groups; arguments as for `reduction`.

    `group` is the input channels and the filters of each group. `operands.pixel` gets a vector of the tile in place of
    channels, and gives all channels that its groups read. The kernel's columns are written out, so that a pixel that is
    put in place for one of them serves the others.
    """
    kh, (given, made) = tirx.Var("kh", "int32"), group

    def products(ic: int, kw: int) -> tirx.Stmt:
        places = [lane // made * given + ic for lane in range(lanes)]

        def product(row: Any, col: Any, vector: Any, total: Any) -> Any:
            pixel = shuffled([operands.pixel(kh, kw, row, col, vector)] * -(-made // given), places)
            return multiply_add(pixel, operands.weight(kh, kw, ic, vector), total, lanes, factor)

        return _whole_tile(operands, tile, product)

    written = [products(ic, kw) for ic in range(given) for kw in range(kernel[1])]
    return loop(kh, kernel[0], sequence(written))


def _whole_tile(operands: Operands, tile: Tile, value: Callable[[Any, Any, Any, Any], Any]) -> tirx.Stmt:
    """Every sum of the tile replaced by `value` of its row, column and vector and of what it was."""
    row, col, vector = (tirx.Var(name, "int32") for name in ("row", "col", "vector"))
    buffer, index = operands.sums(row, col, vector)
    inner: tirx.Stmt = tirx.BufferStore(buffer, value(row, col, vector, tirx.BufferLoad(buffer, index)), index)
    for variable, extent in ((vector, tile.vectors), (col, tile.cols), (row, tile.rows)):
        inner = tirx.For(variable, 0, extent, tirx.ForKind.UNROLLED, inner)
    return inner


def multiply_add(left: Any, right: Any, total: Any, lanes: int, factor: Factor) -> Any:
    """A vector of left * right + total."""
    if factor is not Factor.SPREAD:
        return total + left * right
    # LLVM joins the two only where it takes that to be faster, which it does not on armv7
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", left, right, total)


def _step(tile: Tile, channels: int, factor: Factor) -> int:
    """Channels written out in one turn of the loop."""
    if factor is not Factor.LANE:
        return min(channels, _GROUP) if factor is Factor.SPREAD else 1
    groups = max(1, _WRITTEN_OUT // (tile.rows * tile.cols * tile.vectors * _GROUP))
    return min(channels, groups * _GROUP)


def _factors(
    operands: Operands, at: tuple[Any, Any], first: Any, count: int, lanes: int, factor: Factor
) -> Iterator[tuple[Any, Callable[[Any, Any], Any]]]:
    """For each of so many channels: its number, and what gives its vector of equal numbers at a pixel of the tile."""
    done = 0
    while done < count:
        group = min(_GROUP, 1 << ((count - done).bit_length() - 1)) if factor is Factor.LANE else 1
        start = first + done

        for lane in range(group):

            def value(row: Any, col: Any, lane: int = lane, start: Any = start, group: int = group) -> Any:
                if group == 1:
                    return tirx.Broadcast(operands.pixel(*at, row, col, start), lanes)
                loaded = operands.pixel(*at, row, col, lanes_from(start, group))
                return tirx.Shuffle([loaded] * -(-lanes // group), [lane] * lanes)

            yield start + lane, value
        done += group


def written_out(schedule: Schedule, update: Any, factor: Factor) -> tirx.PrimFunc:
    """A scheduled kernel with the multiply-adds of its convolution in the way that the target wants.

    Args:
        schedule: A kernel whose loops are (blocks of channels, images, rows of tiles), columns of tiles, the reduction,
            and the tile.
        update: The block of its multiply-adds.
        factor: How the target multiplies.
    """
    block = schedule.get(update)
    rows, cols, vectors, lanes, step_h, step_w, hole_h, hole_w = (int(n) for n in block.annotations[TILE])
    outer, col_tile, first, *_ = (schedule.get(one) for one in schedule.get_loops(update))
    sums, (image, weight) = block.body.buffer, _factors_of(block.body.value)
    batch, height, _, _ = sums.shape
    down = height // rows
    number = tirx.floordiv(outer.loop_var, down * batch)
    place = tirx.floormod(tirx.floordiv(outer.loop_var, down), batch)
    row_0, col_0 = tirx.floormod(outer.loop_var, down) * rows, col_tile.loop_var * cols

    def sum_at(row: Any, col: Any, vector: Any) -> tuple[Any, list[Any]]:
        start = (number * vectors + vector) * lanes
        return sums, [place, row_0 + row, col_0 + col, lanes_from(start, lanes)]

    def pixel(kh: Any, kw: Any, row: Any, col: Any, channel: Any) -> Any:
        at = [place, (row_0 + row) * step_h + kh * hole_h, (col_0 + col) * step_w + kw * hole_w]
        return tirx.BufferLoad(image, [*at, channel])

    def weights(kh: Any, kw: Any, ic: Any, vector: Any) -> Any:
        return tirx.BufferLoad(weight, [number, kh, kw, *ic, lanes_from(vector * lanes, lanes)])

    given, tile = _Given(sum_at, pixel, weights, number), Tile(rows, cols, vectors)
    body = _tile_reduced(given, tile, lanes, [int(extent) for extent in weight.shape[1:-1]], block.annotations, factor)
    block = SBlock([], [], [], f"{ACCUMULATE}_written_out", body)
    function = schedule.mod["main"]
    return function.with_body(_replaced(function.body, first.loop_var, SBlockRealize([], True, block)))


@dataclass(frozen=True)
class _Given:
    """Where the numbers of a scheduled kernel lie: as in `Operands`, channels counted from the image's first.

    `weight` takes the input channel as a list, which is empty where each channel has its own kernel; `number` is the
    block of filters.
    """

    sums: Callable[[Any, Any, Any], tuple[Any, list[Any]]]
    pixel: Callable[[Any, Any, Any, Any, Any], Any]
    weight: Callable[[Any, Any, Any, Any], Any]
    number: Any


def _tile_reduced(
    given: _Given, tile: Tile, lanes: int, extents: list[int], annotations: Any, factor: Factor
) -> tirx.Stmt:
    """All multiply-adds of one tile; `extents` are the kernel's rows and columns and, but for depthwise, channels."""
    kernel, block = (extents[0], extents[1]), tile.vectors * lanes

    def weight(kh: Any, kw: Any, ic: Any, vector: Any) -> Any:
        return given.weight(kh, kw, [ic], vector)

    if len(extents) == 2:

        def own(kh: Any, kw: Any, row: Any, col: Any, vector: Any) -> Any:
            return given.pixel(kh, kw, row, col, lanes_from((given.number * tile.vectors + vector) * lanes, lanes))

        return depthwise_reduction(Operands(given.sums, own, given.weight), tile, lanes, kernel, factor)
    if GROUP not in annotations:
        return reduction(Operands(given.sums, given.pixel, weight), tile, lanes, kernel, extents[2], factor)
    width, made = (int(n) for n in annotations[GROUP])
    start, span = first_channel(block, width, made)(given.number), lanes // made * width
    if made % lanes == 0:

        def of_group(kh: Any, kw: Any, row: Any, col: Any, channel: Any) -> Any:
            return given.pixel(kh, kw, row, col, _behind(start, channel))

        return reduction(Operands(given.sums, of_group, weight), tile, lanes, kernel, width, factor)

    def of_groups(kh: Any, kw: Any, row: Any, col: Any, vector: Any) -> Any:
        return given.pixel(kh, kw, row, col, lanes_from(start + vector * span, span))

    return narrow_reduction(Operands(given.sums, of_groups, weight), tile, lanes, kernel, (width, made), factor)


def _behind(start: Any, channels: Any) -> Any:
    """One or several channels in a row, counted from another first one."""
    if isinstance(channels, tirx.Ramp):
        return lanes_from(start + channels.base, int(channels.lanes))
    return start + channels


def _factors_of(value: Any) -> tuple[Any, Any]:
    """The buffers of the image and of the weights in `sum + image * weight`."""
    return value.b.a.source, value.b.b.source


def _replaced(statement: Any, variable: tirx.Var, new: tirx.Stmt) -> Any:
    """A statement with its loop over a variable replaced."""
    if isinstance(statement, tirx.For):
        if statement.loop_var.same_as(variable):
            return new
        body = _replaced(statement.body, variable, new)
        return tirx.For(statement.loop_var, statement.min, statement.extent, statement.kind, body)
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_replaced(part, variable, new) for part in statement.seq])
    if isinstance(statement, SBlockRealize) and not statement.iter_values:
        block = statement.block
        body = _replaced(block.body, variable, new)
        inner = SBlock([], block.reads, block.writes, block.name_hint, body, None, block.alloc_buffers)
        return SBlockRealize([], statement.predicate, inner)
    return statement
