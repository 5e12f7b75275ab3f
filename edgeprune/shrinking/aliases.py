"""Two names for the same numbers: what is overwritten under one of them changes under the other too.

Start with `refuse_partial_write`. torch.fx notes no such thing, so a graph in which it matters is refused. torch.export
is tried next, which turns the write into an operation of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping

from torch import fx

from edgeprune.errors import TraceError

_VIEWS = frozenset({
    "getitem", "view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "swapdims", "permute", "movedim",
    "t", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "squeeze", "unsqueeze", "expand", "expand_as",
    "view_as", "contiguous", "detach", "diagonal", "unfold", "dropout",
})  # fmt: skip


def refuse_partial_write(node: fx.Node, order: Mapping[fx.Node, int]) -> None:
    """Accept an in-place operation only if what it overwrites is read under no other name later.

    Raises:
        TraceError: It is.
    """
    written = node.args[0] if node.args else None
    told = "write to a new tensor instead: y = torch.relu(x), or torch.cat of the parts"
    if node.target is operator.setitem or "out" in node.kwargs:
        raise TraceError(f"torch.fx cannot follow the write into a tensor at {node.format_node()}", hint=told)
    if not isinstance(written, fx.Node):
        return
    for name in _names(_owner(written)):
        later = [user for user in name.users if order[user] > order[node]]
        if name is not written and order[name] < order[node] and later:
            raise TraceError(
                f"torch.fx cannot follow {node.name}: it overwrites numbers that {later[0].name} reads as {name.name}",
                hint=told,
            )


def _owner(node: fx.Node) -> fx.Node:
    """The tensor that a chain of views looks at."""
    while _is_view(node) and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _names(owner: fx.Node) -> Iterator[fx.Node]:
    """A tensor and all views of it."""
    yield owner
    for user in owner.users:
        if _is_view(user) and user.args[:1] == (owner,):
            yield from _names(user)


def _is_view(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _VIEWS
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _VIEWS
