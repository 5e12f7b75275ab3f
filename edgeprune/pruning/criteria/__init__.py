"""Which criteria exist, known without loading torch.

A criterion is one file. Most have a function `scores(layer, context)`: for a Conv2d or Linear it returns a float tensor
[C_out], higher for filters that matter more. One that has to see more than a layer has `scores(network)` and returns
such tensors by layer; one that chooses by itself, and mends what is left, has `choose(network, counts)`. `context.py`
has what they may look at. A new one is its file and one entry in `catalogue.py`.

A user's own is named by where it lies, "package.module:function", or by its name among the entry points of an installed
package, in the group `edgeprune.criteria`; it is of the first kind. Naming it runs that code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.pruning.criteria.catalogue import ENTRIES, CriterionEntry
from edgeprune.user_code import import_callable

__all__ = [
    "GROUP",
    "CriterionEntry",
    "check_options",
    "criterion",
    "entry",
    "installed",
    "is_users_own",
    "methods",
    "users_place",
]

GROUP = "edgeprune.criteria"
"""The group of entry points by which an installed package brings criteria."""


def methods() -> list[str]:
    """The criteria that can be named.

    >>> methods()[:4]
    ['l1', 'l2', 'fpgm', 'cop']
    """
    return list(ENTRIES)


def installed() -> dict[str, str]:
    """Where the criteria of installed packages lie, "package.module:function", by their names. None of them is run."""
    return {one.name: one.value for one in entry_points(group=GROUP)}


def users_place(name: str) -> str | None:
    """Where a criterion that is not edgeprune's own lies, "package.module:function"; None for all others."""
    if ":" in name:
        return name
    return None if name in ENTRIES else installed().get(name)


def is_users_own(name: str) -> bool:
    """Whether naming it runs code that is not edgeprune's."""
    return users_place(name) is not None


def entry(name: str) -> CriterionEntry:
    """What is known of the criterion called `name`; UnknownNameError if there is none."""
    place = users_place(name)
    if place is not None:
        return CriterionEntry(name, "your own" if place == name else "of an installed package", "", place)
    if name not in ENTRIES:
        raise UnknownNameError("pruning method", name, [*ENTRIES, *installed()])
    return ENTRIES[name]


def criterion(name: str) -> Callable[..., Any]:
    """The function of a criterion, of the kind that its entry says; a user's own is imported.

    Raises:
        UnknownNameError: there is none, or it scores no filters.
        UserError: the user's own cannot be imported; the message says why and where.
    """
    written = entry(name).function
    if written is None:
        raise UnknownNameError("criterion of filters", name, [one for one in ENTRIES if ENTRIES[one].function])
    if is_users_own(name):
        return import_callable(written, "criterion", "name a function of a layer and its context", UserError)
    module, _, function = written.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def check_options(name: str, given: Mapping[str, Any]) -> None:
    """Refuse options that a criterion does not take; a user's own says itself what it takes.

    Raises:
        UnknownNameError: it has no such option.
        UserError: it has none at all, or a value is not of the default's kind, or not positive.
    """
    if is_users_own(name):
        return
    allowed = entry(name).options
    for option, value in given.items():
        if not allowed:
            raise UserError(f"method {name} takes no options, and is given {', '.join(given)}", hint="leave them out")
        if option not in allowed:
            raise UnknownNameError(f"option of method {name}", option, allowed)
        kinds = (int,) if isinstance(allowed[option], int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
            raise UserError(
                f"method {name}: {option} is {value!r}",
                hint=f"a {'whole ' if kinds == (int,) else ''}number above 0, such as {allowed[option]}",
            )
