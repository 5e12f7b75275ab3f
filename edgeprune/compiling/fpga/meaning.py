"""What commands have to give, in numpy: one after the other, each whole. Start with `execute`.

It follows the words of `commands.py` and knows nothing of pipelines, queues or waits, so that it is a judge of the
hardware and of the waits that `program.py` finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.commands import SHIFT_OFFSET, Command, Compute, Load, Output, Store
from edgeprune.compiling.fpga.geometry import Core

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass
class _State:
    core: Core
    memory: Int8
    buffers: dict[str, Int8] = field(init=False)
    sums: Int32 = field(init=False)

    def __post_init__(self) -> None:
        n = self.core.n
        words = {"a": self.core.a_words, "r": self.core.r_words, "w": self.core.w_words}
        self.buffers = {name: np.zeros((count, n), np.int8) for name, count in words.items()}
        self.sums = np.zeros((self.core.acc_words, n), np.int32)


def execute(core: Core, commands: Iterable[Command], memory: Int8) -> Int8:
    """The memory after the commands; `memory` itself stays as it is.

    Args:
        core: Its array and buffers.
        commands: In the order of the stream.
        memory: int8 [bytes].

    Raises:
        IndexError: an address outside a buffer or the memory.
    """
    state = _State(core, memory.copy())
    for command in commands:
        if isinstance(command, Compute):
            _compute(state, command)
        else:
            _transfer(state, command)
    return state.memory


def _transfer(state: _State, command: Load | Store) -> None:
    n = state.core.n
    buffer = state.buffers[command.buffer]
    starts = [
        command.memory + plane * command.plane_pitch + run * command.run_pitch
        for plane in range(command.planes)
        for run in range(command.runs)
    ]
    size = command.words * n
    for k, start in enumerate(starts):
        rows = np.arange(command.words) + command.address + k * command.words
        places = np.arange(start, start + size)
        if isinstance(command, Load):
            buffer[rows] = state.memory[places].reshape(-1, n)
        else:
            state.memory[places] = buffer[rows].reshape(-1)


def _compute(state: _State, command: Compute) -> None:
    n = state.core.n
    weights = state.buffers["w"]
    block_words = 1 if command.diagonal else n
    where = slice(command.acc_address, command.acc_address + command.pixels)
    total: Int32 | None = None if command.begins else state.sums[where].copy()
    taps = np.ndindex(command.planes, *command.kernel)
    for number, (plane, tap_row, tap_column) in enumerate(taps):
        start = command.w_address + number * block_words
        block = weights[np.arange(start, start + block_words)].astype(np.int32)
        samples = _samples(state, command, plane, tap_row, tap_column).astype(np.int32)
        product = samples * block[0] if command.diagonal else samples @ block
        if total is not None:
            product = np.maximum(total, product) if command.maximum else total + product
        total = product
    assert total is not None  # there is at least one pass
    state.sums[where] = total
    if command.output is not None:
        after = command.w_address + command.passes * block_words
        _output(state, command.output, total, weights[np.arange(after, after + 9)])


def _samples(state: _State, command: Compute, plane: int, tap_row: int, tap_column: int) -> Int8:
    """int8 [pixels, N]: what one tap of one input plane meets."""
    rows = np.arange(command.rows) * command.stride[0] + command.first_row + tap_row * command.dilation[0]
    columns = np.arange(command.columns) * command.stride[1] + command.first_column + tap_column * command.dilation[1]
    good_rows, good_columns = (rows >= 0) & (rows < command.in_rows), (columns >= 0) & (columns < command.in_columns)
    found = np.full((command.rows, command.columns, state.core.n), command.padding, np.int8)
    places = (rows[good_rows] * command.pitch)[:, None] + columns[good_columns][None, :]
    found[np.ix_(good_rows, good_columns)] = state.buffers["a"][
        command.a_address + plane * command.plane_pitch + places
    ]
    return found.reshape(command.pixels, state.core.n)


def _output(state: _State, output: Output, total: Int32, parameters: Int8) -> None:
    words = parameters.reshape(-1).view(np.uint8)
    n = state.core.n
    bias, multiplier = words[: 4 * n].view("<i4"), words[4 * n : 8 * n].view("<i4")
    shift = words[8 * n :].astype(np.int64) + SHIFT_OFFSET
    scaled = (total + bias).astype(np.int64) * multiplier
    main = np.clip(_rounded(scaled, shift) + output.zero_main, -128, 127)
    place = np.arange(len(total))
    parts = (main - output.zero_main) * output.scale_main
    if output.skip is not None:
        parts += (state.buffers["r"][output.skip + place].astype(np.int64) - output.zero_skip) * output.scale_skip
    results = np.clip(_rounded(parts, np.int64(output.sum_shift)) + output.zero_sum, output.low, output.high)
    for buffer, address in (("a", output.to_a), ("r", output.to_r)):
        if address is not None:
            state.buffers[buffer][address + place] = results.astype(np.int8)


def _rounded(value: NDArray[np.int64], shift: NDArray[np.int64] | np.int64) -> NDArray[np.int64]:
    """value / 2**shift, halves up; shift up to 64."""
    return ((value >> (shift - 1)) + 1) >> 1
