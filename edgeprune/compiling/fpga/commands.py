"""The commands of the core, and the sixteen 32-bit words that each is given as (`devices/fpga/README.md`).

Start with `Compute`: one output plane (N channels) of one tile, summed over input planes and the taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import CompileError

WORDS = 16
Unit = Literal["load", "compute", "store"]
Buffer = Literal["a", "r", "w"]
UNITS: tuple[Unit, ...] = ("load", "compute", "store")
_BUFFERS: tuple[Buffer, ...] = ("a", "r", "w")
SHIFT_OFFSET = 17  # a stored shift is the true one less this
SHIFTS = range(SHIFT_OFFSET, SHIFT_OFFSET + 48)


@dataclass(frozen=True)
class Transfer:
    """Words between memory and a buffer: `planes` times `runs` times `words`, in the buffer one after the other.

    Attributes:
        buffer: `a`, `r` or `w`; only `r` can be stored.
        memory: Byte address of the first word.
        address: Where in the buffer.
        words: Contiguous words of a run.
        runs: Runs of a plane, `run_pitch` bytes apart in memory.
        planes: Planes, `plane_pitch` bytes apart.
    """

    buffer: Buffer
    memory: int
    address: int
    words: int
    runs: int = 1
    run_pitch: int = 0
    planes: int = 1
    plane_pitch: int = 0

    @property
    def total_words(self) -> int:
        """All words that are moved."""
        return self.words * self.runs * self.planes


class Load(Transfer):
    """Memory to a buffer."""


class Store(Transfer):
    """The result buffer to memory."""


@dataclass(frozen=True)
class Output:
    """What becomes of finished sums.

    `q = clamp8(zero_main + round((sum + bias) * multiplier / 2**shift))` with the parameters of each channel, then
    `clamp(zero_sum + round(((q - zero_main) * scale_main + (s - zero_skip) * scale_skip) / 2**sum_shift), low, high)`,
    where s is the value to add. Halves are rounded up.

    Attributes:
        to_a, to_r: Where the results go in the buffers, pixel after pixel; None: not there.
        skip: Where in `r` the values to add lie; None: nothing is added.
        scale_main, scale_skip: 0 to 65535; `sum_shift`: 1 to 32.
    """

    to_a: int | None = None
    to_r: int | None = None
    skip: int | None = None
    zero_main: int = 0
    zero_skip: int = 0
    zero_sum: int = 0
    scale_main: int = 1 << 15
    scale_skip: int = 0
    sum_shift: int = 15
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class Compute:
    """Passes over a tile: for each input plane, kernel row and kernel column, all pixels against N x N weights.

    Attributes:
        a_address: Where in `a` the sample (0, 0) of the first input plane lies.
        pitch: Words from a row of it to the next.
        plane_pitch: Words from an input plane to the next.
        planes: Input planes.
        in_rows, in_columns: The picture; samples outside are `padding`.
        first_row, first_column: The sample that the first tap meets at the first pixel, at most 0 for padding.
        rows, columns: Output pixels.
        kernel, stride, dilation: Rows, columns.
        w_address: Where in `w` the weights of the first pass lie; the parameters follow those of the last.
        diagonal: A pass has one word of weights, for channel by channel, instead of N words.
        maximum: The largest product instead of the sum of all.
        begins: Sums start anew; else they go on from what is in the accumulators at `acc_address`.
        output: What becomes of the sums; None: they stay, for the next command to go on.
    """

    a_address: int
    pitch: int
    in_rows: int
    in_columns: int
    rows: int
    columns: int
    w_address: int
    plane_pitch: int = 0
    planes: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    first_row: int = 0
    first_column: int = 0
    padding: int = 0
    diagonal: bool = False
    maximum: bool = False
    begins: bool = True
    acc_address: int = 0
    output: Output | None = None

    @property
    def passes(self) -> int:
        """Times that the tile goes through the array."""
        return self.planes * self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Output pixels."""
        return self.rows * self.columns


Command = Load | Store | Compute


def unit(command: Command) -> Unit:
    """The unit that carries a command out."""
    if isinstance(command, Compute):
        return "compute"
    return "load" if isinstance(command, Load) else "store"


def encode(command: Command, waits: Sequence[int]) -> NDArray[np.uint32]:
    """The sixteen words of a command.

    Args:
        command: What to do.
        waits: Loads, computes and stores that must be done before, as counts since the start (modulo 65536).

    Raises:
        CompileError: a value does not fit its field.
    """
    fields = _compute_fields(command) if isinstance(command, Compute) else _transfer_fields(command)
    load, compute, store = (wait % (1 << 16) for wait in waits)
    fields += [(0, 16, 16, load), (1, 0, 16, compute), (1, 16, 16, store)]
    words = [0] * WORDS
    for word, bit, width, value in fields:
        if not 0 <= value < 1 << width:
            raise CompileError(f"{value} does not fit {width} bits of a command's word {word}: {command}")
        words[word] |= value << bit
    return np.array(words, np.uint32)


_Fields = list[tuple[int, int, int, int]]  # word, lowest bit, bits, value


def _transfer_fields(transfer: Transfer) -> _Fields:
    is_store = isinstance(transfer, Store)
    return [
        (0, 0, 2, UNITS.index("store" if is_store else "load")), (0, 2, 2, _BUFFERS.index(transfer.buffer)),
        (2, 0, 32, transfer.memory),
        (3, 0, 16, transfer.address), (3, 16, 16, transfer.words),
        (4, 0, 16, transfer.runs), (4, 16, 16, transfer.planes),
        (5, 0, 32, transfer.run_pitch), (6, 0, 32, transfer.plane_pitch),
    ]  # fmt: skip


def _compute_fields(command: Compute) -> _Fields:
    output = command.output or Output()
    first = command.a_address + command.first_row * command.pitch + command.first_column
    finishes = command.output is not None
    return [
        (0, 0, 2, UNITS.index("compute")), (0, 2, 1, command.begins), (0, 3, 1, finishes), (0, 4, 1, command.maximum),
        (0, 5, 1, command.diagonal), (0, 6, 1, output.to_a is not None), (0, 7, 1, output.to_r is not None),
        (0, 8, 1, output.skip is not None),
        (2, 0, 16, first % (1 << 16)), (2, 16, 16, command.plane_pitch),
        (3, 0, 16, command.w_address), (3, 16, 16, command.passes),
        (4, 0, 16, command.columns), (4, 16, 16, command.rows),
        (5, 0, 16, command.in_columns), (5, 16, 16, command.in_rows),
        (6, 0, 16, command.first_column % (1 << 16)), (6, 16, 16, command.first_row % (1 << 16)),
        (7, 0, 8, command.kernel[1]), (7, 8, 8, command.kernel[0]),
        (7, 16, 8, command.stride[1]), (7, 24, 8, command.stride[0]),
        (8, 0, 8, command.dilation[1]), (8, 8, 8, command.dilation[0]),
        (8, 16, 8, _byte(command.padding)), (8, 24, 8, _byte(output.zero_main)),
        (9, 0, 16, command.stride[0] * command.pitch), (9, 16, 16, command.dilation[0] * command.pitch),
        (10, 0, 8, _byte(output.zero_skip)), (10, 8, 8, _byte(output.zero_sum)),
        (10, 16, 8, _byte(output.low)), (10, 24, 8, _byte(output.high)),
        (11, 0, 16, output.scale_main), (11, 16, 16, output.scale_skip if output.skip is not None else 0),
        (12, 0, 16, command.acc_address), (12, 16, 16, output.skip or 0),
        (13, 0, 16, output.to_a or 0), (13, 16, 16, output.to_r or 0),
        (14, 0, 5, output.sum_shift - 1),
    ]  # fmt: skip


def _byte(value: int) -> int:
    """An int8 as an unsigned field; what is no int8 is told as what does not fit."""
    return value & 0xFF if -128 <= value <= 127 else 1 << 8
