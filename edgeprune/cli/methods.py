"""`edgeprune methods`: the pruning methods that a matrix can name, and those that are left out on purpose."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from edgeprune.cli.listing import show

COLUMNS = ("method", "what it does", "kind", "removes", "options", "paper")
OWN = ("package.module:function", "your own: called with a layer and its context; naming it runs your code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table, with the tests of each")


def carry_out(given: argparse.Namespace) -> int:
    """Print name, meaning, kind, structures, options and source of each."""
    if given.markdown:
        print(_markdown(), end="")
        return 0
    from edgeprune import pruning
    from edgeprune.pruning.criteria import installed

    left_out = [(name, f"not here: {why}", "", "", "", paper) for name, (why, paper) in pruning.NOT_HERE.items()]
    found = installed().items()
    own = [(name, f"of an installed package: {place}", "one-shot", "filter", "", "") for name, place in found]
    show(COLUMNS, [*(row for row, _ in _rows()), *own, (*OWN, "one-shot", "filter", "", ""), *left_out])
    return 0


def _rows() -> Iterable[tuple[tuple[str, ...], str]]:
    """The fields of each method, and the file that tests it."""
    from edgeprune import pruning

    for entry in map(pruning.entry, pruning.methods()):
        options = ", ".join(f"{option}={default}" for option, default in entry.options.items())
        removes = ", ".join(entry.structures)
        yield (entry.name, entry.summary, entry.kind, removes, options, entry.paper), entry.held_by


def _markdown() -> str:
    from edgeprune import pruning

    tests = "../../tests/unit"
    rows = [
        (f"`{row[0]}`", *row[1:4], f"`{row[4]}`" if row[4] else "", row[5], f"[{file}]({tests}/{file})")
        for row, file in _rows()
    ]
    left_out = [f"- `{name}`: {why} ({paper})." for name, (why, paper) in pruning.NOT_HERE.items()]
    lines = [
        "# Pruning methods",
        "",
        "What `method` of a matrix can name, with the test that holds each to its paper. Made by "
        "`edgeprune methods --markdown`.",
        "",
        *_table((*COLUMNS, "held by"), rows),
        "",
        "Methods that train also take the options of training: " + _schedule() + ". A function of your own is named as "
        f"`{OWN[0]}`, or as an entry point that an installed package has in the group `edgeprune.criteria`.",
        "",
        "Left out on purpose:",
        "",
        *left_out,
    ]
    return "\n".join(lines) + "\n"


def _schedule() -> str:
    from edgeprune.pruning.trained import SCHEDULE_OPTIONS

    return ", ".join(f"`{option}={default}`" for option, default in SCHEDULE_OPTIONS.items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(field.replace("|", "\\|") for field in line) + " |" for line in lines]
