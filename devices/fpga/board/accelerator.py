"""Runs a compiled network on a board's core: registers, and memory that processor and core both see.

Start with `Accelerator.run`. Needs Python 3.8 and nothing else; README.md beside it says how the core comes onto a
board. Registers are anything with `read(offset)` and `write(offset, value)`: PYNQ's `MMIO`, or `Mapped` for a board
without PYNQ. The memory's caches are the caller's: flush what the core reads, invalidate what it wrote.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import NamedTuple, Protocol

IDENTITY = 0x31465045
COMMAND_BYTES, PAGE = 64, 4096
_PARAMETERS, _CONTROL, _STATUS, _COMMANDS, _COUNT, _BASE = 0x04, 0x08, 0x0C, 0x10, 0x18, 0x1C
_CYCLES, _READ, _WRITTEN, _ACTIVITY = 0x40, 0x44, 0x48, 0x60
_RUNNING, _ERROR = 1, 4
ACTIVITIES = ("working", "no_command", "load", "compute", "store", "weights", "output", "pause")


class Registers(Protocol):
    """32-bit registers by their offset in bytes."""

    def read(self, offset: int) -> int:
        """The value."""

    def write(self, offset: int, value: int) -> None:
        """Set it."""


class BoardError(Exception):
    """The core is not there, does not end, or the memory answered with an error."""


class Counters(NamedTuple):
    """What a run took.

    Attributes:
        cycles: From the start to the last word written; modulo 2**32.
        bytes_read, bytes_written: Without the commands.
        activity: Cycles by what the array did; `working` is the use of it.
    """

    cycles: int
    bytes_read: int
    bytes_written: int
    activity: dict[str, int]


class Accelerator:
    """The core behind some registers.

    Args:
        registers: Of `axi_core`.

    Raises:
        BoardError: something else is at that address.
    """

    def __init__(self, registers: Registers) -> None:
        found = registers.read(0)
        if found != IDENTITY:
            raise BoardError(
                f"no core at these registers: they begin with {found:#x}, not {IDENTITY:#x}; is its bitstream loaded?"
            )
        self._registers = registers
        parameters = registers.read(_PARAMETERS)
        self.n = parameters & 0xFF
        places = (("a_words", 8), ("r_words", 13), ("w_words", 18), ("acc_words", 23))
        self.buffers = {name: 1 << (parameters >> shift & 0x1F) for name, shift in places}

    def run(self, commands: int, count: int, memory: int, patience_s: float = 10.0) -> Counters:
        """Carry a stream of commands out.

        Args:
            commands: Physical address of the first, a multiple of 64.
            count: How many.
            memory: Physical address of what the commands call byte 0, a multiple of 4096.
            patience_s: How long to wait.

        Raises:
            BoardError: an address is not aligned, the run does not end, or the memory refused.
        """
        if commands % COMMAND_BYTES or memory % PAGE:
            raise BoardError(f"commands lie at multiples of {COMMAND_BYTES}, the memory at one of {PAGE}")
        if self._status() & _RUNNING:
            raise BoardError("a run is under way; if it is one that never ends, load the bitstream again")
        self._wide(_COMMANDS, commands)
        self._wide(_BASE, memory)
        self._registers.write(_COUNT, count)
        self._registers.write(_CONTROL, 1)
        end = time.monotonic() + patience_s
        while self._status() & _RUNNING:
            if time.monotonic() > end:
                raise BoardError(f"the run has not ended after {patience_s:g} s")
        if self._status() & _ERROR:
            raise BoardError("the memory answered with an error: is all that the commands name allocated?")
        return self._counters()

    def _status(self) -> int:
        return self._registers.read(_STATUS)

    def _wide(self, offset: int, value: int) -> None:
        self._registers.write(offset, value & 0xFFFFFFFF)
        self._registers.write(offset + 4, value >> 32)

    def _counters(self) -> Counters:
        read = self._registers.read
        activity = {name: read(_ACTIVITY + 4 * k) for k, name in enumerate(ACTIVITIES)}
        return Counters(read(_CYCLES), read(_READ) * self.n, read(_WRITTEN) * self.n, activity)


class Mapped:
    """Physical addresses through `/dev/mem` (or a `/dev/uio` file, from 0): registers, or memory kept from Linux.

    Args:
        address: Where, a multiple of 4096.
        size: Bytes.
        path: The file; root may open it.
    """

    def __init__(self, address: int, size: int, path: str = "/dev/mem") -> None:
        file = os.open(path, os.O_RDWR | os.O_SYNC)
        try:
            self._map = mmap.mmap(file, size, offset=address)
        finally:
            os.close(file)
        self.address = address
        self.bytes = memoryview(self._map)
        self._words = self.bytes.cast("I")

    def read(self, offset: int) -> int:
        """The 32-bit word so many bytes from the start."""
        return self._words[offset // 4]

    def write(self, offset: int, value: int) -> None:
        """Set it."""
        self._words[offset // 4] = value
