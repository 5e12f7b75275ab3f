"""What a person sees while a run goes on: bars in a terminal, plain lines elsewhere. Start with `open_progress`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from edgeprune.matrix.pool import Prepared
from edgeprune.schema import CellEnd, CellKey

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

_PLAIN_EVERY_SECONDS = 10.0


class RunProgress(Protocol):
    """Who is told what a run is doing; devices' threads tell it at the same time."""

    def say(self, text: str) -> None:
        """A sentence that stays on the screen."""

    def preparing(self, running: Sequence[str], done: int, total: int) -> None:
        """Which stages are in work, and how many are done."""

    def prepared(self, result: Prepared) -> None:
        """A stage has ended."""

    def measuring(self, key: CellKey, doing: str, cells: tuple[int, int], seconds_left: float | None) -> None:
        """What a device is at; its cells done and in all, and the seconds to go there, None if not known."""

    def ended(self, end: CellEnd) -> None:
        """A cell has ended."""


@contextmanager
def open_progress(stream: TextIO | None = None) -> Iterator[RunProgress]:
    """Progress on stderr: bars in a terminal, a line now and then without one."""
    out = sys.stderr if stream is None else stream
    if not out.isatty():
        yield PlainProgress(out)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[phase]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    # two refreshes a second: a measurement runs beside this
    with Progress(*columns, console=Console(file=out), refresh_per_second=2, transient=True) as bars:
        yield BarProgress(bars)


class PlainProgress:
    """A line for each cell and stage that ends, and a sign of life in between."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: dict[str, float] = {}
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self._out.write(text + "\n")  # one call: lines of two threads must not mix
        self._out.flush()

    def preparing(self, running: Sequence[str], done: int, total: int) -> None:
        self._now_and_then("", f"preparing {done}/{total}: {'; '.join(running)}")

    def prepared(self, result: Prepared) -> None:
        if not result.inherited:
            self._last[""] = time.monotonic()
            self.say(_prepared_words(result))

    def measuring(self, key: CellKey, doing: str, cells: tuple[int, int], seconds_left: float | None) -> None:
        left = "" if seconds_left is None else f", {duration(seconds_left)} to go"
        self._now_and_then(key.device, f"{key.device}: cells {cells[0]}/{cells[1]}{left}: {name(key)}, {doing}")

    def ended(self, end: CellEnd) -> None:
        self._last[end.key.device] = time.monotonic()
        self.say(_ended_words(end))

    def _now_and_then(self, about: str, text: str) -> None:
        """Say it if nothing was said about this for a while."""
        if time.monotonic() - self._last.get(about, self._began) >= _PLAIN_EVERY_SECONDS:
            self._last[about] = time.monotonic()
            self.say(text)


class BarProgress:
    """A bar for stages prepared, and one a device for its cells."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._prepare = bars.add_task("", phase="prepare", visible=False, total=0)
        self._devices: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(text))

    def preparing(self, running: Sequence[str], done: int, total: int) -> None:
        from rich.markup import escape

        words = escape(" · ".join(running))
        self._bars.update(self._prepare, visible=True, completed=done, total=total, description=words)

    def prepared(self, result: Prepared) -> None:
        if result.folder is None and not result.inherited:
            self.say(_prepared_words(result))

    def measuring(self, key: CellKey, doing: str, cells: tuple[int, int], seconds_left: float | None) -> None:
        from rich.markup import escape

        left = "" if seconds_left is None else f"{duration(seconds_left)} to go · "
        words = escape(f"{left}{name(key)} · {doing}")
        self._bars.update(self._prepare, visible=False)
        if key.device not in self._devices:  # only its own thread tells of a device
            self._devices[key.device] = self._bars.add_task("", phase=key.device, total=cells[1])
        self._bars.update(self._devices[key.device], completed=cells[0], total=cells[1], description=words)

    def ended(self, end: CellEnd) -> None:
        if end.status != "ok":
            self.say(_ended_words(end))


def name(key: CellKey) -> str:
    """A cell in the words of a progress line."""
    network = key.network
    ratio = "" if network.pruning_ratio is None else f" {network.pruning_ratio:g}"
    recipe = "" if network.variant == "dense" else f" {network.method}{ratio}"
    where = f"{key.runtime} on {key.device}, {key.threads} thread{'s' if key.threads > 1 else ''}"
    return f"{network.model}{recipe} {network.variant}, {where}"


def causes(ends: Iterable[CellEnd]) -> list[str]:
    """Cells that did not end well, a line for each cause: how many, the first by name, and why."""
    found: dict[tuple[str, str], list[CellKey]] = {}
    for end in ends:
        if end.status != "ok":
            found.setdefault((end.status, end.reason), []).append(end.key)
    return [
        f"{status}: {name(keys[0])}{f' and {len(keys) - 1} more cells' if keys[1:] else ''}: {reason}"
        for (status, reason), keys in found.items()
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42), duration(185), duration(7300)
    ('42 s', '3 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _prepared_words(result: Prepared) -> str:
    if result.folder is None:
        return f"failed: {result.task.title}: {result.reason}"
    return f"done: {result.task.title}"


def _ended_words(end: CellEnd) -> str:
    return f"{end.status}: {name(end.key)}" + (f": {end.reason}" if end.reason else "")
