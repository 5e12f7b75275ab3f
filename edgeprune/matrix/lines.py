"""Where in a YAML file each value stands, so that a mistake is told with its line. Start with `Lines.place`."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import yaml

from edgeprune.errors import MatrixError

Place = tuple[str | int, ...]
"""The way to a value: keys of mappings and places in lists."""


class Lines:
    """Where in the file each value stands."""

    def __init__(self, path: Path, tree: yaml.Node) -> None:
        self._path = path
        self._tree = tree

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
                        raise MatrixError(f"{self._path}:{key.start_mark.line + 1}: key {key.value!r} is there twice")
                    seen.add(key.value)
                    pending.append(value)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None
