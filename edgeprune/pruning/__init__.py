"""Which filters go. Start with `prune`; `masks.py` is its result.

`criteria/` scores filters, one file each; `trained/` prunes by training, one file each.

Importing this package loads no torch until a name that needs it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.errors import UnknownNameError
from edgeprune.pruning import criteria
from edgeprune.pruning.criteria import CriterionEntry
from edgeprune.pruning.trained import ENTRIES as _TRAINED
from edgeprune.pruning.trained import MethodEntry, Option
from edgeprune.pruning.trained.options import sort_options

if TYPE_CHECKING:
    from edgeprune.pruning.masks import Masks
    from edgeprune.pruning.select import prune

NOT_HERE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "rnp": (
            "runtime neural pruning chooses filters for each image: all stay in the network, so none can be shrunk",
            "Lin et al. 2017, Runtime neural pruning (RNP)",
        )
    }
)
"""Methods of the papers that are left out on purpose: why, and where they come from."""

__all__ = [
    "NOT_HERE",
    "CriterionEntry",
    "Masks",
    "MethodEntry",
    "check_options",
    "default_scope",
    "entry",
    "methods",
    "prune",
    "users_place",
]

_LATE = {
    "Masks": "edgeprune.pruning.masks",
    "prune": "edgeprune.pruning.select",
}


def methods() -> list[str]:
    """The methods that can be named: criteria first, then those that train.

    >>> "l1" in methods(), "slimming" in methods()
    (True, True)
    """
    return [*criteria.methods(), *_TRAINED]


def entry(name: str) -> CriterionEntry | MethodEntry:
    """What is known of the method called `name`; UnknownNameError if there is none. No user's code is run."""
    if name in _TRAINED:
        return _TRAINED[name]
    if name not in criteria.methods() and not criteria.is_users_own(name):
        raise UnknownNameError("pruning method", name, [*methods(), *criteria.installed()])
    return criteria.entry(name)


def users_place(name: str) -> str | None:
    """Where a criterion that is not edgeprune's own lies, "package.module:function"; None for all other methods."""
    return None if name in _TRAINED else criteria.users_place(name)


def check_options(name: str, options: Mapping[str, Option]) -> None:
    """UserError for options that the method does not take."""
    if name in _TRAINED:
        sort_options(_TRAINED[name], options)
    else:
        criteria.check_options(name, options)


def default_scope(name: str) -> Literal["local", "global"]:
    """Where a method reaches its ratio unless another scope is asked for."""
    return _TRAINED[name].scope if name in _TRAINED else "local"


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
