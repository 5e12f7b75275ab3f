"""The network as a list of sites: what `torch.fx` or torch.export traced, with shapes, modules and operators.

Start with `trace`. It works on a private copy (see `copying`) in eval mode, so the caller's model is never touched, and
in-place operations are pure (see `tracing`), so that every later pass may read a node as a value.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from edgeprune.errors import ModelError
from edgeprune.shrinking.exported import trace_exported
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, Forms, settle_parameters, wanted_axes
from edgeprune.shrinking.functional import raise_functional
from edgeprune.shrinking.named_reads import Whole, answer_sizes, kept_whole
from edgeprune.shrinking.operators import operator_for
from edgeprune.shrinking.operators.kernels import LAYERS, Kernels
from edgeprune.shrinking.shapes import shapes_of, unfit
from edgeprune.shrinking.tracing import Traced, has_parameters, symbolic_trace

if TYPE_CHECKING:
    from edgeprune.shrinking.operators.base import Operator

_WHOLE = Whole()


@dataclass(frozen=True)
class Site:
    """One node of the network: its operator, its module, its tensor operands and the shape of its output.

    Attributes:
        operands: The tensors the operator analyses channel by channel; other inputs of the node are kept whole.
        form: Shape of the output for the example inputs and its channel axis, or None where it is not a tensor.
        shared: The node calls a module with parameters that another node calls too.
        tensor: The parameter or buffer that the node reads by its name, if it does that.
        forms: The forms of all nodes, for what a rule must know of its surroundings.
    """

    node: fx.Node
    operator: Operator
    module: nn.Module | None
    operands: tuple[fx.Node, ...]
    operand_forms: tuple[Form, ...]
    form: Form | None
    shared: bool
    tensor: Tensor | None
    forms: Forms = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The module's name in the model, or the node's."""
        return str(self.node.target) if self.node.op == "call_module" else self.node.name

    @property
    def kind(self) -> str:
        """The module's class, or the name of the function or method."""
        if self.module is not None:
            return type(self.module).__name__
        return str(getattr(self.node.target, "__name__", self.node.target))

    @cached_property
    def kernels(self) -> Kernels:
        """The weights of the convolution or linear layer that the node calls."""
        if not isinstance(self.module, LAYERS):
            raise TypeError(f"{self.name} calls no convolution and no linear layer")
        return Kernels(self.module)

    @cached_property
    def channels(self) -> int:
        """Channels of the output; 0 where it has no channel axis."""
        return 0 if self.form is None else self.form.channels


@dataclass(frozen=True)
class Network:
    """A traced model: its graph and modules, and the sites in the order they run."""

    root: Traced
    sites: tuple[Site, ...]

    @cached_property
    def by_node(self) -> dict[fx.Node, Site]:
        """The site of each node."""
        return {site.node: site for site in self.sites}


def as_tuple(example_inputs: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of forward that `example_inputs` stands for."""
    return tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)


def trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> Network:
    """Trace a model and say of each node what it is.

    The network shares the model's layers and changes none of them; in-place ones it replaces by pure twins.

    Raises:
        TraceError: neither torch.fx nor torch.export can follow forward; the message names the line.
        ModelError: forward fails on the example inputs.
    """
    root, shapes = _follow(model, example_inputs)
    wanted = wanted_axes(root.graph, root.modules, shapes)
    calls = Counter(node.target for node in root.graph.nodes if node.op == "call_module")
    for node in root.graph.nodes:
        if node.op == "call_module":
            node.meta["module"] = root.module(node)  # for operators that are several nodes
    # what an operator may read of its own output is the shape: the axis is settled once it is matched
    forms = {
        node: None if shape is None else Form(shape, wanted.get(node, CHANNEL_AXIS)) for node, shape in shapes.items()
    }
    chosen: dict[fx.Node, tuple[Operator, tuple[fx.Node, ...]]] = {}
    whole = kept_whole(root)
    settled: set[fx.Node] = set()
    fixed: set[fx.Node] = set()
    for node in root.graph.nodes:
        settled |= settle_parameters(node, forms, settled)
        stays = node.op == "call_module" and node.target in whole
        kind, operands = chosen[node] = (_WHOLE, ()) if stays else operator_for(node, root.module(node), forms)
        if node.op == "get_attr" or (fixed and _made_of(fixed, node, forms)):
            fixed.add(node)
        form = forms[node]
        if form is not None:
            given = tuple(form for form in map(forms.get, operands) if form is not None)
            axis = kind.axis(node, given, form.shape)
            batched = node.op == "placeholder" or any(each.batched for each in given)
            settled_as = (form.axis if axis is None else axis, node in fixed, batched)
            if settled_as != (form.axis, form.fixed, form.batched):
                forms[node] = Form(form.shape, *settled_as)
    return Network(root, tuple(_site(root, node, *chosen[node], forms, calls) for node in root.graph.nodes))


def _made_of(fixed: set[fx.Node], node: fx.Node, forms: Forms) -> bool:
    """Whether all tensors that a node reads are among some."""
    tensors = [other for other in node.all_input_nodes if forms[other] is not None]
    return bool(tensors) and fixed.issuperset(tensors)


def _follow(model: nn.Module, example_inputs: tuple[Any, ...]) -> tuple[Traced, dict[fx.Node, torch.Size | None]]:
    """The graph by torch.fx, or where it can not by torch.export, with the shape of each node's output."""
    try:
        root = symbolic_trace(model, len(example_inputs))
        answer_sizes(root)
        shapes = shapes_of(root, example_inputs)
    except ModelError:
        # torch.fx may also have followed a way that tensors do not go: isinstance(x, Tensor) is false for its own
        _require_fit(model, example_inputs)
    else:
        raise_functional(root, shapes)
        return root, shapes
    root = trace_exported(model, example_inputs)
    return root, shapes_of(root, example_inputs)


def _require_fit(model: nn.Module, example_inputs: tuple[Any, ...]) -> None:
    try:
        with torch.no_grad():
            model(*copy.deepcopy(example_inputs))
    except Exception as error:
        raise unfit(example_inputs, error) from error


def _site(
    root: Traced,
    node: fx.Node,
    kind: Operator,
    operands: tuple[fx.Node, ...],
    forms: Forms,
    calls: Mapping[Any, int],
) -> Site:
    module = root.module(node)
    given = tuple(form for form in map(forms.get, operands) if form is not None)
    shared = calls[node.target] > 1 and module is not None and has_parameters(module)
    # the one slope of a PReLU is of no channel, so its calls need not agree
    shared = shared and getattr(module, "num_parameters", 0) != 1
    value = root.attribute(str(node.target)) if node.op == "get_attr" else None
    tensor = value if isinstance(value, Tensor) else None
    return Site(node, kind, module, operands, given, forms[node], shared, tensor, forms)
