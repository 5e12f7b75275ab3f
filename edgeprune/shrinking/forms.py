"""The form of a tensor: its shape, and which of its axes holds the channels.

Start with `Form`. Images are [N, C, ...] with the channels on axis 1; what a linear or layer-norm layer reads holds its
channels on the last axis. Each operator says where its output's channels stand (`Operator.axis`); for tensors that
nothing is known of, `wanted_axes` asks their readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

CHANNEL_AXIS = 1
"""Where the channels stand unless a reader says otherwise; in [N, F] these are the features."""


@dataclass(frozen=True)
class Form:
    """A tensor's shape for the example inputs, and its channel axis (0 or more; at or past the rank: it has none).

    `fixed` says that it is made of parameters alone, so that it is trained and its batch may be 1; `batched` that its
    batch is known to be the input's, and not only as large for the example.
    """

    shape: torch.Size
    axis: int
    fixed: bool = False
    batched: bool = True

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @cached_property
    def channels(self) -> int:
        """Number of channels; 0 where the tensor has no channel axis."""
        return int(self.shape[self.axis]) if self.axis < self.rank else 0

    @property
    def pixels(self) -> int:
        """Numbers of each channel in one batch of example inputs."""
        return int(self.shape.numel()) // max(self.channels, 1)

    def lay_out(self, numbers: Tensor) -> Tensor:
        """One number a channel [C] as a tensor of this rank that is 1 wide on all other axes."""
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(self.rank)])


Forms = Mapping[fx.Node, Form | None]
"""The form of each node's output, None where it is no tensor."""


def moved_axis(node: fx.Node, rank: int, axis: int) -> int | None:
    """Where a permutation of axes puts `axis`, or None if the node is none: permute, transpose, swapaxes, t."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.op not in ("call_method", "call_function") or node.kwargs:
        return None
    given: Any = node.args[1:]
    if name == "permute":
        order = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
        if len(order) != rank or not all(isinstance(place, int) for place in order):
            return None
        places: list[int] = [place % rank for place in order]
        return places.index(axis)
    if name in ("transpose", "swapaxes", "swapdims"):
        if len(given) != 2 or not all(isinstance(place, int) for place in given):
            return None
        first, second = (place % rank for place in given)
        return int({first: second, second: first}.get(axis, axis))
    return None


def wanted_axes(
    graph: fx.Graph, modules: Mapping[str, nn.Module], shapes: Mapping[fx.Node, torch.Size | None]
) -> dict[fx.Node, int]:
    """For each tensor the channel axis that its readers take it to have, where one of them says so.

    What a linear layer makes has its channels last, whatever is known of the layer.
    """
    wanted: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        shape = shapes[node]
        if shape is not None and node.op == "call_module" and type(modules[str(node.target)]) is nn.Linear:
            wanted[node] = len(shape) - 1
        for operand in node.all_input_nodes:
            given = shapes[operand]
            if given is None or len(given) < 2:
                continue
            asked = _asked_axis(node, modules, len(given))
            if asked is None and node in wanted and shape is not None and len(shape) == len(given):
                asked = _before(node, len(given), wanted[node])
            if asked is not None:
                wanted.setdefault(operand, asked)
    return wanted


def settle_parameters(node: fx.Node, forms: dict[fx.Node, Form | None], settled: set[fx.Node]) -> set[fx.Node]:
    """Let bare parameters among a node's inputs take the channel axis of the tensor that they meet there first.

    Changes `forms`; returns the parameters that it settled. One that meets none has its channels on its one axis that
    is not 1 wide, or else where its readers want them.
    """
    if all(other.op != "get_attr" for other in node.all_input_nodes):
        return set()
    partners = [forms[other] for other in node.all_input_nodes if other.op != "get_attr"]
    partner = next((form for form in partners if form is not None and form.channels), None)
    found: set[fx.Node] = set()
    for parameter in node.all_input_nodes:
        form = forms[parameter]
        if parameter.op != "get_attr" or parameter in settled or form is None:
            continue
        wide = [place for place, size in enumerate(form.shape) if size > 1]
        axis = wide[0] if len(wide) == 1 else form.axis
        if partner is not None:
            axis = partner.axis - (partner.rank - form.rank)
        # before its first axis is as good as past its last: the tensor has no channels
        forms[parameter] = replace(form, axis=axis if axis >= 0 else form.rank)
        found.add(parameter)
    return found


def _asked_axis(node: fx.Node, modules: Mapping[str, nn.Module], rank: int) -> int | None:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if module is None or not module._parameters:
        return None
    if isinstance(module, nn.Linear | nn.LayerNorm):
        return rank - 1
    return CHANNEL_AXIS if any(parameter is not None for parameter in module._parameters.values()) else None


def _before(node: fx.Node, rank: int, axis: int) -> int:
    if moved_axis(node, rank, axis) is None:
        return axis
    return next(place for place in range(rank) if moved_axis(node, rank, place) == axis)
