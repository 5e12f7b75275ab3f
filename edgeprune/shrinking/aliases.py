"""Two names for the same numbers: what is overwritten under one of them changes under the other too.

Start with `refuse_partial_write`. torch.fx notes no such thing, so a graph in which it matters is refused. torch.export
is tried next, which turns the write into an operation of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping

from torch import Tensor, fx, nn

from edgeprune.errors import TraceError

_VIEWS = frozenset({
    "getitem", "view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "swapdims", "permute", "movedim",
    "t", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "squeeze", "unsqueeze", "expand", "expand_as",
    "view_as", "contiguous", "detach", "diagonal", "unfold", "ravel", "reshape_as", "broadcast_to", "moveaxis",
    "split_with_sizes", "hsplit", "vsplit", "dsplit", "as_strided", "adjoint", "positive", "view_as_real",
    "view_as_complex", "to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", "dropout",
    "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth",
})  # fmt: skip
"""Functions and methods that may give their first argument, or look at it."""

_VIEW_ATTRIBUTES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})

_VIEW_MODULES = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip

_NUMBERS = frozenset({"size", "dim", "ndimension", "numel", "stride", "item", "nelement"})


def refuse_partial_write(node: fx.Node, order: Mapping[fx.Node, int], modules: Mapping[str, nn.Module]) -> None:
    """Accept an in-place operation only if it has a pure twin and what it overwrites is read under no other name later.

    Raises:
        TraceError: It is.
    """
    written = node.args[0] if node.args else None
    told = "write to a new tensor instead: y = torch.relu(x), or torch.cat of the parts"
    if node.target is operator.setitem or "out" in node.kwargs:
        raise TraceError(f"torch.fx cannot follow the write into a tensor at {node.format_node()}", hint=told)
    if node.op == "call_method" and not callable(getattr(Tensor, str(node.target)[:-1], None)):
        raise TraceError(f"torch.fx cannot follow the write into a tensor by {node.target}", hint=told)
    if not isinstance(written, fx.Node):
        return
    for name in _names(_owner(written, modules), modules):
        later = [user for user in name.users if order[user] > order[node]]
        if name is not written and order[name] < order[node] and later:
            raise TraceError(
                f"torch.fx cannot follow {node.name}: it overwrites numbers that {later[0].name} reads as {name.name}",
                hint=told,
            )


def is_number(node: fx.Node) -> bool:
    """Whether the node is a size, or made of sizes by arithmetic, and no tensor."""
    if node.op == "call_method":
        return node.target in _NUMBERS
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    plain = getattr(node.target, "__module__", "") in ("_operator", "math", "builtins")
    return node.target is len or (
        plain and bool(node.all_input_nodes) and all(is_number(given) for given in node.all_input_nodes)
    )


def _owner(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node:
    """The tensor that a chain of views looks at."""
    while _is_view(node, modules) and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _names(owner: fx.Node, modules: Mapping[str, nn.Module]) -> Iterator[fx.Node]:
    """A tensor and all views of it."""
    yield owner
    for user in owner.users:
        if _is_view(user, modules) and user.args[:1] == (owner,):
            yield from _names(user, modules)


def _is_view(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _VIEW_MODULES)
    if node.target is getattr:
        return node.args[1] in _VIEW_ATTRIBUTES
    if node.op == "call_method":
        return node.target in _VIEWS
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _VIEWS
