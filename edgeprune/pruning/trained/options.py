"""The options of methods that train, checked without loading torch. Start with `sort_options`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.pruning.trained import SCHEDULE_OPTIONS, MethodEntry, Option


def sort_options(entry: MethodEntry, options: Mapping[str, Option]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The method's own options and those of its training, both with their defaults.

    Raises:
        UnknownNameError: The method has no such option.
        UserError: An option of another type.
    """
    own: dict[str, Any] = dict(entry.options)
    schedule: dict[str, Any] = dict(SCHEDULE_OPTIONS)
    for name, value in options.items():
        place = own if name in own else schedule
        if name not in place:
            raise UnknownNameError(f"option of method {entry.name}", name, [*own, *schedule])
        _require_type(entry, name, value, place[name])
        place[name] = value
    return own, schedule


def _require_type(entry: MethodEntry, name: str, value: Option, default: Option) -> None:
    wanted = (int, float) if isinstance(default, float) or default is None else (type(default),)
    is_flag = isinstance(value, bool) and bool not in wanted
    if is_flag or not (isinstance(value, wanted) or (value is None and default is None)):
        kinds = " or ".join(one.__name__ for one in wanted)
        raise UserError(f"method {entry.name}: {name} is {value!r}", hint=f"{name} takes {kinds}, such as {default!r}")
