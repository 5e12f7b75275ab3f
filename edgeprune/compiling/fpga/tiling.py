"""Into which pieces a layer falls so that each fits the core's buffers. Start with `plan`.

A band is some output rows; its sums fill the accumulators. Its input rows are loaded beside those of the band before,
so that loading and computing overlap. A chunk is the part of the input planes and kernel rows whose weights fit half
of the weight buffer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgeprune.compiling.fpga.geometry import PARAMETER_WORDS, Core
from edgeprune.compiling.fpga.layers import Layer
from edgeprune.errors import CompileError

_HASTE = 16  # words that are loaded while the array works cost a cycle now and then: one in so many


@dataclass(frozen=True)
class Chunk:
    """Weights of one compute command.

    Attributes:
        planes: First input plane, and the one after the last.
        kernel_rows: First kernel row, and the one after the last.
        piece: Input planes that are in the activation buffer together with these.
    """

    planes: tuple[int, int]
    kernel_rows: tuple[int, int]
    piece: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """A layer cut up.

    Attributes:
        bands: First output row and number of rows of each.
        chunks: For each output plane the chunks in order.
    """

    bands: tuple[tuple[int, int], ...]
    chunks: tuple[tuple[Chunk, ...], ...]


@dataclass(frozen=True)
class Staging:
    """Words that a layer may use for what it loads and stores.

    Attributes:
        a: For input that is not in the activation buffer yet; None: it is there.
        r: For each of results and values to add that pass through the result buffer; None: nothing does.
        w: For weights.
    """

    a: int | None
    r: int | None
    w: int


def plan(core: Core, layer: Layer, rows: int, columns: int, staging: Staging) -> Plan:
    """Cut a layer up.

    Args:
        core: Its array and accumulators.
        layer: What to compute.
        rows, columns: Of the input.
        staging: Room in the buffers.

    Raises:
        CompileError: not even one row of the output, of one input plane, fits.
    """
    out_rows, out_columns = layer.picture(rows, columns)
    most_pixels = core.acc_words if staging.r is None else min(core.acc_words, staging.r)
    if most_pixels < out_columns:
        raise CompileError(
            f"a row of {out_columns} pixels does not fit the {most_pixels} sums that a {core.label} core keeps",
            hint="a smaller picture, or a core with larger buffers",
        )
    reads = _planes_read(core, layer)
    together = max(high - low for low, high in reads)
    most_rows, pieces = min(out_rows, most_pixels // out_columns), 1
    if staging.a is not None:
        most_rows, pieces = _fit(core, layer, (rows, columns), together, most_rows, staging)
    count = -(-out_rows // most_rows)
    edges = [out_rows * k // count for k in range(count + 1)]
    bands = tuple((low, high - low) for low, high in itertools.pairwise(edges))
    chunks = tuple(tuple(_chunks(core, layer, span, pieces, staging.w)) for span in reads)
    return Plan(bands, chunks)


def input_rows(layer: Layer, rows: int, band: tuple[int, int]) -> tuple[int, int]:
    """The input rows that a band reads: the first and the one after the last, padding left out."""
    first = band[0] * layer.stride[0] - layer.padding[0]
    last = first + (band[1] - 1) * layer.stride[0] + (layer.weights.shape[2] - 1) * layer.dilation[0]
    low = min(max(first, 0), rows - 1)
    return low, max(min(last + 1, rows), low + 1)


def _planes_read(core: Core, layer: Layer) -> list[tuple[int, int]]:
    """For each output plane the input planes that any of its weights reads, whatever the weight."""
    n, spans = core.n, []
    for plane in range(core.planes(layer.out_channels)):
        if layer.is_channelwise:
            spans.append((plane, plane + 1))
            continue
        outs = np.arange(plane * n, min((plane + 1) * n, layer.out_channels))
        firsts = outs // (layer.out_channels // layer.groups) * layer.weights.shape[1]
        shape = (len(outs), layer.weights.shape[1])
        used = layer.weights[outs].any(axis=(2, 3)) if layer.skips_zeros else np.ones(shape, np.bool_)
        channels = (firsts[:, None] + np.arange(layer.weights.shape[1])[None, :])[used]
        planes = channels // n if channels.size else np.zeros(1, np.int64)
        spans.append((int(planes.min()), int(planes.max()) + 1))
    return spans


def _fit(
    core: Core, layer: Layer, picture: tuple[int, int], together: int, most_rows: int, staging: Staging
) -> tuple[int, int]:
    """Output rows of a band, and into how many pieces its input planes fall: what should take the fewest cycles.

    Pieces of one band are loaded again for each output plane; bands that fill more than half of the buffer are not
    loaded beside the one before. A word a cycle is what the memory is taken to give.
    """
    assert staging.a is not None
    words, weight_words = staging.a, staging.w
    out_rows, out_columns = layer.picture(*picture)
    out_planes, taps = core.planes(layer.out_channels), int(np.prod(layer.weights.shape[2:]))
    best: tuple[int, int, int] | None = None
    for bands in range(-(-out_rows // most_rows), out_rows + 1):
        band_rows = -(-out_rows // bands)
        passes = bands * out_planes * together * taps
        compute = max(passes * max(band_rows * out_columns, core.n + 1), 1)
        weights = passes * (1 if layer.is_channelwise else core.n)
        if weights // bands <= weight_words // 2:
            weights //= bands  # they stay
        for pieces in _halvings(together):
            needed = _input_words(layer, picture, -(-together // pieces), band_rows)
            if needed > words:
                continue
            again = out_planes if pieces > 1 or layer.is_channelwise else 1
            loads = bands * pieces * again * needed
            is_beside = 2 * needed <= words and bands * pieces * again > 1
            cycles = max(compute, weights + loads) + needed if is_beside else max(compute, weights) + loads
            this = (cycles + (weights + loads) // _HASTE, band_rows, pieces)
            best = min(best or this, this)
    if best is None:
        raise CompileError(
            f"{_input_words(layer, picture, 1, 1)} words of input for one row of output do not fit the {words} of a"
            f" {core.label} core",
            hint="a smaller picture, or a core with larger buffers",
        )
    return best[1], best[2]


def _input_words(layer: Layer, picture: tuple[int, int], planes: int, band_rows: int) -> int:
    """Words of some input planes that a band reads."""
    reach = (band_rows - 1) * layer.stride[0] + (layer.weights.shape[2] - 1) * layer.dilation[0] + 1
    return planes * int(min(reach, picture[0])) * picture[1]


def _halvings(number: int) -> list[int]:
    """1, 2, 4 ... and the number itself."""
    return sorted({1 << k for k in range(number.bit_length()) if 1 << k <= number} | {number})


def _chunks(core: Core, layer: Layer, span: tuple[int, int], pieces: int, words: int) -> list[Chunk]:
    """The chunks of one output plane."""
    kernel_rows, kernel_columns = layer.weights.shape[2:]
    row_words = kernel_columns * (1 if layer.is_channelwise else core.n)
    planes = span[1] - span[0]
    size = -(-planes // pieces)
    found = []
    for low in range(span[0], span[1], size):
        piece = (low, min(low + size, span[1]))
        half = words // 2 - PARAMETER_WORDS
        at_once = half // (row_words * kernel_rows)
        if at_once:
            found += [Chunk((k, min(k + at_once, piece[1])), (0, kernel_rows), piece) for k in range(*piece, at_once)]
            continue
        step = half // row_words or (words - PARAMETER_WORDS) // row_words
        if not step:
            raise CompileError(
                f"a kernel of {kernel_columns} columns does not fit the {words} weight words of a {core.label} core",
                hint="a core with a larger weight buffer",
            )
        found += [
            Chunk((k, k + 1), (row, min(row + step, kernel_rows)), piece)
            for k in range(*piece)
            for row in range(0, kernel_rows, step)
        ]
    return found
