"""Weights that forward reads by their name although their layer is called too: `self.a(x) + self.a.weight.sum()`.

Start with `kept_whole`. A layer has one set of weights, and what a reader of the bare tensor makes of it nobody knows,
so such a layer stays as it is. Questions about a weight's size have their answers before anything is cut.
"""

from __future__ import annotations

import math
import operator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.operators.base import Opaque
from edgeprune.shrinking.tracing import Traced

_SIZES = frozenset({"shape", "ndim"})
_SIZE_METHODS = frozenset({"size", "dim", "ndimension", "numel", "nelement"})
_TYPES = frozenset({"dtype", "device", "is_cuda", "requires_grad"})
_ARITHMETIC = frozenset({
    operator.getitem, operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.pow,
    operator.mod, operator.neg, math.sqrt, math.prod,
})  # fmt: skip


class Whole(Opaque):
    """A layer whose weights are read by name too."""

    needs_all = "its weights are also read by name, so the layer stays whole"


def kept_whole(traced: Traced) -> frozenset[str]:
    """Names of the called modules that hold a tensor whose numbers forward reads by name, perhaps another module's."""
    read = [node for node in _tensors(traced) if any(not _asks(user, _TYPES, frozenset()) for user in node.users)]
    if not read:
        return frozenset()
    owners = {str(node.target).rpartition(".")[0] for node in read}
    tensors = {id(traced.attribute(str(node.target))) for node in read}

    def is_read(name: str, module: nn.Module) -> bool:
        held = map(id, chain(module.parameters(), module.buffers()))
        return not tensors.isdisjoint(held) or any(f"{owner}.".startswith(f"{name}.") for owner in owners)

    return frozenset(name for name, module in traced.modules.items() if is_read(name, module))


def answer_sizes(traced: Traced) -> None:
    """Put numbers for questions such as `self.a.weight.shape[0]`: the masked network's weights have settled them."""
    answers: dict[fx.Node, Any] = {}
    for node in list(traced.graph.nodes) if _tensors(traced) else ():
        if any(other in answers for other in node.all_input_nodes):
            node.args, node.kwargs = fx.node.map_arg((node.args, node.kwargs), lambda one: answers.get(one, one))
        answer = _answer(node, traced)
        if answer is not None:
            answers[node] = answer
    for node in reversed(answers):
        asked = node.all_input_nodes
        traced.graph.erase_node(node)
        for tensor in asked:
            if not tensor.users:
                traced.graph.erase_node(tensor)


def _answer(node: fx.Node, traced: Traced) -> Any:
    """What a node gives that asks a parameter or buffer for its size, or reckons with such answers; else None."""
    first = node.args[0] if node.args else None
    if node.op == "call_function" and node.target in _ARITHMETIC and not node.all_input_nodes:
        return node.target(*node.args)
    if not isinstance(first, fx.Node) or first.op != "get_attr" or len(node.all_input_nodes) > 1:
        return None
    tensor = traced.attribute(str(first.target))
    if not isinstance(tensor, Tensor) or not _asks(node, _SIZES, _SIZE_METHODS):
        return None
    if node.op == "call_method":
        answer = getattr(tensor, str(node.target))(*node.args[1:], **node.kwargs)
    else:
        answer = getattr(tensor, str(node.args[1]))
    return tuple(answer) if isinstance(answer, torch.Size) else answer


def _tensors(traced: Traced) -> list[fx.Node]:
    return [node for node in traced.graph.nodes if node.op == "get_attr"]


def _asks(node: fx.Node, attributes: frozenset[str], methods: frozenset[str]) -> bool:
    """Whether a node asks its tensor one of these things."""
    if node.op == "call_method":
        return node.target in methods
    return node.op == "call_function" and node.target is getattr and node.args[1] in attributes
