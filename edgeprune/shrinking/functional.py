"""Functional calls in a graph of torch.fx, such as `F.conv2d(x, self.weight)`, raised into calls of layers.

Start with `raise_functional`. `layers` says which layer of torch.nn a call stands for.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgeprune.shrinking.layers import NamedLayer, WeightedCall, named_layer
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.tracing import Traced

_Function = Callable[..., Any]


def _takes(text: str) -> inspect.Signature:
    """The signature of a function of torch's, whose own are not told."""
    parts = [part.partition("=") for part in text.split()]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = {"None": None, "False": False, "True": True, "0": 0, "1": 1, "0.1": 0.1, "1e-5": 1e-5}
    return inspect.Signature([
        inspect.Parameter(name, kind, default=defaults[value] if sign else inspect.Parameter.empty)
        for name, sign, value in parts
    ])  # fmt: skip


_CONVOLUTION = _takes("input weight bias=None stride=1 padding=0 dilation=1 groups=1")
_TRANSPOSED = _takes("input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1")
_STATISTICS = "running_mean=None running_var=None weight=None bias=None"
_CALLS: dict[_Function, tuple[str, inspect.Signature]] = {
    F.conv1d: ("conv1d.default", _CONVOLUTION),
    F.conv2d: ("conv2d.default", _CONVOLUTION),
    F.conv3d: ("conv3d.default", _CONVOLUTION),
    F.conv_transpose1d: ("conv_transpose1d.default", _TRANSPOSED),
    F.conv_transpose2d: ("conv_transpose2d.input", _TRANSPOSED),
    F.conv_transpose3d: ("conv_transpose3d.input", _TRANSPOSED),
    F.linear: ("linear.default", _takes("input weight bias=None")),
    F.batch_norm: (
        "_native_batch_norm_legit_no_training.default",
        _takes(f"input {_STATISTICS} training=False momentum=0.1 eps=1e-5"),
    ),
    F.instance_norm: (
        "instance_norm.default",
        _takes(f"input {_STATISTICS} use_input_stats=True momentum=0.1 eps=1e-5"),
    ),
    F.group_norm: ("group_norm.default", _takes("input num_groups weight=None bias=None eps=1e-5")),
    F.layer_norm: ("layer_norm.default", _takes("input normalized_shape weight=None bias=None eps=1e-5")),
    F.prelu: ("prelu.default", _takes("input weight")),
}  # fmt: skip
"""The operators of `layers` that functions are, and how they are called."""


def raise_functional(traced: Traced, shapes: dict[fx.Node, torch.Size | None]) -> None:
    """Make a layer's call of each functional call on parameters that nothing else reads.

    Args:
        traced: Its graph, its modules and its functional layers are changed.
        shapes: The shape of each node's output; it is kept in step with the graph.
    """
    for node, layer in list(_calls(traced, shapes)):
        traced.modules.setdefault(layer.name, layer.module)
        if layer.bare:
            traced.functional[layer.name] = layer.tensors
        holders = [other for other in node.all_input_nodes if other.op == "get_attr"]
        node.op, node.target, node.args, node.kwargs = "call_module", layer.name, (layer.source,), {}
        for holder in holders:
            if not holder.users:
                traced.graph.erase_node(holder)
                del shapes[holder]


def _calls(traced: Traced, shapes: dict[fx.Node, torch.Size | None]) -> Iterator[tuple[fx.Node, NamedLayer]]:
    """The calls to replace, each with its layer."""
    wanted = [node for node in traced.graph.nodes if node.op == "call_function" and node.target in _CALLS]
    if not wanted:
        return
    names = {node: str(node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    found: dict[str, dict[fx.Node, NamedLayer]] = defaultdict(dict)
    for node in wanted:
        layer = _layer(node, traced, shapes, names)
        if layer is not None and _is_free(layer, traced):
            found[layer.name][node] = layer
    for calls in found.values():
        held = {name for layer in calls.values() for name in layer.tensors.values()}
        alone = all(user in calls for node, name in names.items() if name in held for user in node.users)
        if alone and len({(repr(layer.module), *sorted(layer.tensors.items())) for layer in calls.values()}) == 1:
            yield from calls.items()


def _is_free(layer: NamedLayer, traced: Traced) -> bool:
    """Whether no module is called that holds the layer's tensors, but for the same layer."""
    if layer.bare:
        owners = [f"{name.rpartition('.')[0]}." for name in layer.tensors.values()]
        return not any(owner.startswith(f"{called}.") for called in traced.modules for owner in owners)
    called = traced.modules.get(layer.name)
    return called is None or (is_plain(called) and repr(called) == repr(layer.module))


def _layer(
    node: fx.Node, traced: Traced, shapes: dict[fx.Node, torch.Size | None], names: dict[fx.Node, str]
) -> NamedLayer | None:
    operator, signature = _CALLS[node.target]  # type: ignore[index]
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    given = dict(bound.arguments)
    source = given["input"]
    shape = shapes[source] if isinstance(source, fx.Node) else None
    uses_batch = given.get("training", False) is not False or given.get("use_input_stats", True) is not True
    if shape is None or source in names or uses_batch:
        return None

    def tensor_of(holder: fx.Node) -> Tensor | None:
        value = traced.attribute(names[holder])
        return value if isinstance(value, Tensor) else None

    return named_layer(WeightedCall(operator, given, source, len(shape)), names, tensor_of, traced.model)
