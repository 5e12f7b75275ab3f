"""A stream of commands with what each waits for. Start with `Program.add`.

The core's three units run freely; a command begins when given numbers of the other units' commands are done. Here they
follow from what a command reads and writes, so that lowering a layer never speaks of waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.commands import UNITS, Command, Compute, Load, Transfer, encode, unit
from edgeprune.compiling.fpga.geometry import PARAMETER_WORDS, Core
from edgeprune.errors import CompileError

_FAR = 1 << 14  # a count that lies further back is done by now, and would not fit the 16 bits of a wait
_PAGE = 256  # bytes
_COMPUTE = UNITS.index("compute")
Span = tuple[int, int]


class _Ledger:
    """Who touched which words of one place last: for each unit the count of its commands, reads and writes apart."""

    def __init__(self, grain: int) -> None:
        self.grain = grain  # bytes of memory are noted together, words of a buffer one by one
        self.counts = np.zeros((2, len(UNITS), 1024), np.int64)

    def last(self, span: Span, *, written: bool) -> NDArray[np.int64]:
        """int64 [units]: the last command of each that read, or wrote, anything of a span; 0: none."""
        where = self._where(span)
        return np.max(self.counts[int(written), :, where], axis=1)  # type: ignore[no-any-return]

    def note(self, span: Span, unit: int, count: int, *, writes: bool) -> None:
        """A command touches a span."""
        where = self._where(span)
        self.counts[int(writes), unit, where] = count

    def _where(self, span: Span) -> slice:
        """The part of `counts` that a span is; it is made to reach so far."""
        found = slice(span[0] // self.grain, -(-span[1] // self.grain))
        while found.stop > self.counts.shape[2]:
            self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)], axis=2)
        return found


@dataclass
class Program:
    """Commands in order, and the words that they are given to the core as.

    Attributes:
        core: What they are for.
        commands: As added.
    """

    core: Core
    commands: list[Command] = field(default_factory=list)
    _words: list[NDArray[np.uint32]] = field(default_factory=list)
    _done: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(UNITS), np.int64))
    _ledgers: dict[str, _Ledger] = field(default_factory=dict)

    def add(self, command: Command) -> None:
        """Append a command; it will wait for what it reads, and for the readers of what it overwrites.

        Raises:
            CompileError: it reaches outside a buffer, or a value does not fit.
        """
        _refuse_own_overlap(command, self.core.n)
        own = UNITS.index(unit(command))
        needed = np.zeros(len(UNITS), np.int64)
        spans = [(*item, False) for item in _reads(command, self.core.n)]
        spans += [(*item, True) for item in _writes(command, self.core.n)]
        for place, span, writes in spans:
            self._check(place, span, command)
            if place == "acc":
                continue  # one unit's own, in order
            ledger = self._ledgers.setdefault(place, _Ledger(_PAGE if place == "memory" else 1))
            written = ledger.last(span, written=True)
            if writes or own != _COMPUTE:
                written[own] = 0  # a unit keeps its order, but for a compute that reads what another has on its way
            needed = np.maximum(needed, written)
            if writes:
                read = ledger.last(span, written=False)
                read[own] = 0
                needed = np.maximum(needed, read)
        self._words.append(encode(command, np.maximum(needed, self._done - _FAR).tolist()))
        self.commands.append(command)
        self._done[own] += 1
        for place, span, writes in spans:
            if place in self._ledgers:
                self._ledgers[place].note(span, own, int(self._done[own]), writes=writes)

    def words(self) -> NDArray[np.uint32]:
        """uint32 [commands, 16]."""
        return np.stack(self._words) if self._words else np.zeros((0, 16), np.uint32)

    def _check(self, place: str, span: Span, command: Command) -> None:
        most = {"a": self.core.a_words, "r": self.core.r_words, "w": self.core.w_words, "acc": self.core.acc_words}
        if place in most and not 0 <= span[0] < span[1] <= most[place]:
            raise CompileError(
                f"words {span[0]} to {span[1]} are not in buffer {place!r} of {most[place]} words: {command}"
            )


def _refuse_own_overlap(command: Command, n: int) -> None:
    """A compute writes while it reads: only what is added may lie where the results go, value for value."""
    if not isinstance(command, Compute):
        return
    for place, span in _writes(command, n):
        for other, read in _reads(command, n):
            if place == other and _meet(span, read) and not (place == "r" and span == read):
                raise CompileError(f"a compute overwrites words {span} of buffer {place!r} that it reads: {command}")


def _meet(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _reads(command: Command, n: int) -> list[tuple[str, Span]]:
    if not isinstance(command, Compute):
        return _memory_spans(command, n) if isinstance(command, Load) else [_buffer_span(command)]
    plane = command.in_rows * command.pitch
    starts = [command.a_address + k * command.plane_pitch for k in range(command.planes)]
    spans: list[tuple[str, Span]] = []
    if command.plane_pitch == plane:
        spans.append(("a", (starts[0], starts[-1] + plane)))
    else:
        spans += [("a", (start, start + plane)) for start in starts]
    weights = command.passes * (1 if command.diagonal else n) + (PARAMETER_WORDS if command.output else 0)
    spans.append(("w", (command.w_address, command.w_address + weights)))
    if command.output is not None and command.output.skip is not None:
        spans.append(("r", (command.output.skip, command.output.skip + command.pixels)))
    return spans


def _writes(command: Command, n: int) -> list[tuple[str, Span]]:
    if not isinstance(command, Compute):
        return [_buffer_span(command)] if isinstance(command, Load) else _memory_spans(command, n)
    spans = [("acc", (command.acc_address, command.acc_address + command.pixels))]
    if command.output is not None:
        for place, address in (("a", command.output.to_a), ("r", command.output.to_r)):
            if address is not None:
                spans.append((place, (address, address + command.pixels)))
    return spans


def _buffer_span(transfer: Transfer) -> tuple[str, Span]:
    return transfer.buffer, (transfer.address, transfer.address + transfer.total_words)


def _memory_spans(transfer: Transfer, n: int) -> list[tuple[str, Span]]:
    size = (transfer.runs - 1) * transfer.run_pitch + transfer.words * n
    starts = [transfer.memory + plane * transfer.plane_pitch for plane in range(transfer.planes)]
    return [("memory", (start, start + size)) for start in starts]
