"""What shrinking did, in lines of at most 100 columns: a line a layer, then the causes, counted over all layers."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprune.shrinking import LayerReport, ShrinkReport

_COLUMNS = ("layer", "kind", "inputs", "outputs", "parameters", "kept")
_WIDEST = (34, 17, 12, 12, 11, 5)
_PAGE = 100
_LEFT = 2
"""Columns of words; numbers stand at the right of theirs."""


def table(report: ShrinkReport) -> list[str]:
    """The report as lines."""
    rows = [_cells(row) for row in report.layers]
    widths = [max(len(row[place]) for row in [_COLUMNS, *rows]) for place in range(len(_COLUMNS))]
    lines = [_line(row, widths) for row in [_COLUMNS, *rows]]
    causes, layers = _causes(report.layers)
    lines += [f"{count:>7,} {cause} ({_layers(len(layers[cause]))})" for cause, count in causes.most_common()]
    told = [f"left alone, with all channels that it reads: {name}" for name in report.unknown] + list(report.notes)
    return lines + [line for text in told for line in textwrap.wrap(text, _PAGE, subsequent_indent="  ")]


def _cells(row: LayerReport) -> tuple[str, ...]:
    kept = row.params_after / row.params_before if row.params_before else 1.0
    cells = (
        row.layer,
        row.op,
        _change(row.in_before, row.in_after),
        _change(row.out_before, row.out_after),
        f"{row.params_after:,}",
        f"{kept:.0%}",
    )
    return tuple(_end(cell, widest) for cell, widest in zip(cells, _WIDEST, strict=True))


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} -> {after}"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _end(text: str, width: int) -> str:
    """The end of a long name tells layers apart."""
    return text if len(text) <= width else "..." + text[3 - width :]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if place < _LEFT else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _causes(rows: Sequence[LayerReport]) -> tuple[Counter[str], dict[str, set[str]]]:
    """How many channels went or stayed for each cause, and in which layers."""
    counts: Counter[str] = Counter()
    layers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for note in row.notes:
            number, _, cause = note.partition(" ")
            counts[cause] += int(number)
            layers[cause].add(row.layer)
    return counts, layers
