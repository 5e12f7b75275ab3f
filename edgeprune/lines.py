"""YAML files that people write, and where in them each value stands, so that a mistake is told with its line.

Start with `read`; `explain` puts what pydantic found into the words of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgeprune.errors import UserError, nearest_hint

Place = tuple[str | int, ...]
"""The way to a value: keys of mappings and places in lists."""


class Lines:
    """Where in the file each value stands, and the error that its mistakes raise."""

    def __init__(self, path: Path, tree: yaml.Node, error: type[UserError]) -> None:
        self._path = path
        self._tree = tree
        self.error = error

    def place(self, where: Place) -> str:
        """`file:line: key` of a value, or of the nearest thing around it that exists."""
        node, line = self._tree, self._tree.start_mark.line
        for part in where:
            child = _child(node, part)
            if child is None:
                break
            key, node = child
            line = (key or node).start_mark.line
        words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
        return f"{self._path}:{line + 1}: {words}"

    def refuse_duplicates(self) -> None:
        """YAML takes the last of two equal keys in silence; a benchmark must not."""
        pending = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, yaml.SequenceNode):
                pending.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                seen: set[Hashable] = set()
                for key, value in node.value:
                    if key.value in seen:
                        raise self.error(f"{self._path}:{key.start_mark.line + 1}: key {key.value!r} is there twice")
                    seen.add(key.value)
                    pending.append(value)


def read(path: Path, what: str, model: type[BaseModel], error: type[UserError]) -> tuple[dict[Any, Any], Lines]:
    """The mapping that a file holds, and its lines; nothing but plain values is made of it.

    Args:
        path: The file.
        what: What it is, such as "a matrix".
        model: What it must hold; its keys are named where it is no mapping.
        error: What a mistake raises.

    Raises:
        UserError: of the class `error`: unreadable, not YAML, no mapping, or a key that is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read: {problem}") from problem
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        words = getattr(problem, "problem", None) or str(problem)
        raise error(f"{path}{line}: not valid YAML: {words}") from None
    if not isinstance(content, dict) or tree is None:
        raise error(f"{path}: {what} is a mapping of keys", hint="allowed: " + ", ".join(keys(model)))
    lines = Lines(path, tree, error)
    lines.refuse_duplicates()
    return content, lines


def explain(
    problem: ValidationError, lines: Lines, model_at: Callable[[Place], type[BaseModel]], example: str
) -> UserError:
    """The first mistake, told in the words of the file.

    Args:
        problem: What pydantic found.
        lines: Where the values stand.
        model_at: The model of the mapping at a place.
        example: What to look at where a key is missing.
    """
    # a misspelt key is told before the key that is missing because of it
    first = min(problem.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where: Place = tuple(first["loc"])
    place, value = lines.place(where), first.get("input")
    if first["type"] == "extra_forbidden":
        hint = nearest_hint(str(where[-1]), keys(model_at(where[:-1])))
        return lines.error(f"{place}: unknown key {where[-1]!r}", hint=hint)
    if first["type"] == "missing":
        return lines.error(f"{place}: this key is needed", hint=f"see {example}")
    if first["type"] == "model_type":
        allowed = "allowed: " + ", ".join(keys(model_at(where)))
        return lines.error(f"{place}: {where[0]} is a mapping of keys, not {value!r}", hint=allowed)
    if first["type"] == "literal_error":
        words = re.findall(r"(?<=')[^' ]+(?=')|\b\d+\b", str(first["ctx"]["expected"]))
        words.sort(key=lambda one: (int(one) if one.isdecimal() else 0, one))
        return lines.error(f"{place}: {value!r} is not allowed", hint=nearest_hint(str(value), words))
    if where and "ratio" in where:
        return lines.error(f"{place}: {value!r} is no pruning ratio", hint="allowed: 0 <= ratio < 1, such as 0.5")
    return lines.error(f"{place}: {value!r}: {first['msg'][0].lower()}{first['msg'][1:]}")


def keys(model: type[BaseModel]) -> list[str]:
    """The keys that a mapping may have."""
    return sorted(model.model_fields)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None
