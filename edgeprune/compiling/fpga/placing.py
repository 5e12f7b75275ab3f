"""Where the tensors of a network lie: in the core's buffers where they fit, else in the memory. Start with `place`.

A tensor is in `a` for the layers that read it and in `r` for those that add it, from the layer that makes it to the
last that wants it there. What is in the memory passes through what is left of the buffers (rings). If a layer has too
little left for that, the largest tensor that is in its way goes to the memory, and all is placed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.operations import Operation, Value
from edgeprune.compiling.fpga.places import Ring, Tensor

_PAGE = 256  # bytes: the grain in which a program notes who touched the memory
_Place = Literal["a", "r"]


@dataclass(frozen=True)
class Span:
    """Words or bytes of one place that a tensor holds, from one operation to another, both with it."""

    value: Value
    start: int
    size: int
    first: int
    last: int

    def meets(self, first: int, last: int) -> bool:
        """Whether it is held during any of some operations."""
        return self.first <= last and first <= self.last


@dataclass
class Placement:
    """Where everything lies.

    Attributes:
        tensors: By value.
        rings: For each operation what is left of `a` and `r`.
        memory_bytes: From address 0 on.
    """

    tensors: dict[Value, Tensor]
    rings: list[tuple[Ring | None, Ring | None]]
    memory_bytes: int


@dataclass
class _Attempt:
    core: Core
    operations: Sequence[Operation]
    banned: set[tuple[Value, str]]
    spans: dict[str, list[Span]] = field(default_factory=lambda: {"a": [], "r": [], "memory": []})

    def room(self, place: _Place) -> int:
        """Words of a buffer."""
        return self.core.a_words if place == "a" else self.core.r_words

    def words(self, value: Value) -> int:
        """Words that a tensor takes."""
        return self.core.planes(value.channels) * value.rows * value.columns

    def holds(self, place: str, value: Value) -> Span | None:
        """A tensor's span of a place."""
        return next((span for span in self.spans[place] if span.value == value), None)

    def hold(self, place: _Place, value: Value, first: int, last: int, reuse: Span | None) -> None:
        """Put a tensor into a buffer, in the place of one that it takes the place of, or where there is room."""
        size = self.words(value)
        if (value, place) in self.banned or size > self.room(place):
            return
        if reuse is not None and reuse.last == first and reuse.size == size:
            others = [span for span in self.spans[place] if span is not reuse and span.meets(first, last)]
            if all(span.start + span.size <= reuse.start or reuse.start + size <= span.start for span in others):
                self.spans[place].append(Span(value, reuse.start, size, first, last))
                return
        start = first_fit([span for span in self.spans[place] if span.meets(first, last)], size, 1)
        if start + size <= self.room(place):
            self.spans[place].append(Span(value, start, size, first, last))

    def ring(self, place: _Place, at: int) -> Ring:
        """The longest part of a buffer that no tensor holds during an operation."""
        held = sorted((span.start, span.start + span.size) for span in self.spans[place] if span.meets(at, at))
        best, end = (0, 0), 0
        for start, stop in [*held, (self.room(place), 0)]:
            best = max(best, (start - end, end))
            end = max(end, stop)
        return Ring(best[1], best[0])


def place(core: Core, operations: Sequence[Operation], inputs: Iterable[Value], outputs: Iterable[Value]) -> Placement:
    """Find a place for every tensor of some operations.

    Args:
        core: Its buffers.
        operations: In order.
        inputs: What is in the memory before the first.
        outputs: What is wanted in the memory after the last.
    """
    inputs, outputs = list(inputs), list(outputs)
    banned: set[tuple[Value, str]] = set()
    while True:
        attempt = _Attempt(core, operations, banned)
        for number, operation in enumerate(operations):
            _hold_target(attempt, number, operation)
        rings = [_rings(attempt, number, operation, outputs) for number, operation in enumerate(operations)]
        wrong = next((found for found in rings if isinstance(found, _InTheWay)), None)
        if wrong is None:
            tensors, size = _in_memory(attempt, inputs, outputs)
            return Placement(tensors, [found for found in rings if not isinstance(found, _InTheWay)], size)
        banned.add((wrong.value, wrong.place))


@dataclass(frozen=True)
class _InTheWay:
    value: Value
    place: str


def _hold_target(attempt: _Attempt, number: int, operation: Operation) -> None:
    """Put the result of an operation where its readers want it."""
    value = operation.target
    later = list(enumerate(attempt.operations))[number + 1 :]
    as_source = [at for at, one in later if one.source == value]
    as_skip = [at for at, one in later if one.skip == value]
    if as_source:
        attempt.hold("a", value, number, as_source[-1], None)
    if as_skip:
        given = attempt.holds("r", operation.skip) if operation.skip is not None else None
        attempt.hold("r", value, number, as_skip[-1], given)


def _rings(
    attempt: _Attempt, number: int, operation: Operation, outputs: Sequence[Value]
) -> tuple[Ring | None, Ring | None] | _InTheWay:
    """What is left for an operation's transfers, or the tensor that leaves too little."""
    core, target = attempt.core, operation.target
    needed: dict[_Place, int] = {"a": 0, "r": 0}
    if attempt.holds("a", operation.source) is None:
        needed["a"] = min(attempt.words(operation.source), core.a_words // 2)
    passing = int(_needs_memory(attempt, target, outputs) and attempt.holds("r", target) is None)
    passing += int(operation.skip is not None and attempt.holds("r", operation.skip) is None)
    if passing:
        needed["r"] = max(min(2 * passing * target.rows * target.columns, core.r_words // 2), 4 * target.columns)
    found: list[Ring | None] = []
    for where, words in needed.items():
        ring = attempt.ring(where, number) if words else None
        held = [span for span in attempt.spans[where] if span.meets(number, number)]
        if ring is not None and ring.words < words and held:
            return _InTheWay(max(held, key=lambda span: (span.size, span.start)).value, where)
        found.append(ring)
    return found[0], found[1]


def _needs_memory(attempt: _Attempt, value: Value, outputs: Sequence[Value]) -> bool:
    """Whether somebody reads a tensor from the memory."""
    source = any(one.source == value for one in attempt.operations) and attempt.holds("a", value) is None
    skip = any(one.skip == value for one in attempt.operations) and attempt.holds("r", value) is None
    return source or skip or value in outputs


def _in_memory(attempt: _Attempt, inputs: Sequence[Value], outputs: Sequence[Value]) -> tuple[dict[Value, Tensor], int]:
    """Addresses in the memory of what needs one, and all tensors."""
    made = {operation.target: number for number, operation in enumerate(attempt.operations)}
    tensors, top = {}, 0
    for value, first in [*((value, -1) for value in inputs), *made.items()]:
        address = None
        if value in inputs or _needs_memory(attempt, value, outputs):
            reads = [number for number, one in enumerate(attempt.operations) if value in one.reads]
            last = len(attempt.operations) if value in outputs else max(reads, default=first)
            size = attempt.words(value) * attempt.core.n
            address = first_fit([span for span in attempt.spans["memory"] if span.meets(first, last)], size, _PAGE)
            attempt.spans["memory"].append(Span(value, address, size, first, last))
            top = max(top, -(-(address + size) // _PAGE) * _PAGE)
        in_a, in_r = attempt.holds("a", value), attempt.holds("r", value)
        places = (None if held is None else held.start for held in (in_a, in_r))
        tensors[value] = Tensor(value.channels, value.rows, value.columns, address, *places)
    return tensors, top


def first_fit(held: Iterable[Span], size: int, grain: int) -> int:
    """The first place that is free."""
    align: Callable[[int], int] = lambda number: -(-number // grain) * grain  # noqa: E731
    start = 0
    for span in sorted(held, key=lambda span: span.start):
        if start + size <= span.start:
            break
        start = max(start, align(span.start + span.size))
    return start
