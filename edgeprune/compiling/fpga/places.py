"""Where tensors lie, and how the rest of a buffer is given out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.errors import CompileError


@dataclass(frozen=True)
class Tensor:
    """int8 [planes, rows, columns, N], wherever it is kept; it may be in several places at once.

    Attributes:
        channels, rows, columns: Its shape.
        memory: Byte address.
        a, r: Address in a buffer.
    """

    channels: int
    rows: int
    columns: int
    memory: int | None = None
    a: int | None = None
    r: int | None = None

    def words(self, core: Core) -> int:
        """Words that it takes."""
        return core.planes(self.channels) * self.rows * self.columns


@dataclass
class Ring:
    """Words of a buffer that are given out one after the other, from the start again when the end is reached.

    Whoever used the words before is waited for: that is the program's work.
    """

    start: int
    words: int
    _used: int = 0

    def take(self, words: int) -> int:
        """The address of so many words in a row.

        Raises:
            CompileError: the ring is smaller.
        """
        if words > self.words:
            raise CompileError(f"{words} words do not fit {self.words} of a buffer")
        if self._used + words > self.words:
            self._used = 0
        self._used += words
        return self.start + self._used - words
