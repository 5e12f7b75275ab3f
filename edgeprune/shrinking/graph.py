"""The network as a list of sites: what `torch.fx` traced, with shapes, modules and operators.

Start with `trace`. It works on a copy in eval mode, so the caller's model is never touched; pruning hooks and
parametrizations are baked into plain weights, and in-place operations are turned into pure ones, so that every later
pass may read a node as a value.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from edgeprune.errors import ModelError, WeightsError
from edgeprune.shrinking.additions import Gather, IndexAdd
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form, wanted_axes
from edgeprune.shrinking.operators import operator_for
from edgeprune.shrinking.operators.kernels import LAYERS, Kernels
from edgeprune.user_code import untraceable

if TYPE_CHECKING:
    from edgeprune.shrinking.operators.base import Operator

_PURE_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    torch.clamp_: torch.clamp,
    F.relu_: F.relu,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
    F.hardtanh_: F.hardtanh,
}


@dataclass(frozen=True)
class Site:
    """One node of the network: its operator, its module, its tensor operands and the shape of its output.

    Attributes:
        operands: The tensors the operator analyses channel by channel; other inputs of the node are kept whole.
        form: Shape of the output for the example inputs and its channel axis, or None where it is not a tensor.
        shared: The node calls a module with parameters that another node calls too.
    """

    node: fx.Node
    operator: Operator
    module: nn.Module | None
    operands: tuple[fx.Node, ...]
    operand_forms: tuple[Form, ...]
    form: Form | None
    shared: bool

    @property
    def name(self) -> str:
        """The module's name in the model, or the node's."""
        return str(self.node.target) if self.node.op == "call_module" else self.node.name

    @cached_property
    def kernels(self) -> Kernels:
        """The weights of the convolution or linear layer that the node calls."""
        if not isinstance(self.module, LAYERS):
            raise TypeError(f"{self.name} calls no convolution and no linear layer")
        return Kernels(self.module)

    @property
    def channels(self) -> int:
        """Channels of the output; 0 where it has no channel axis."""
        return 0 if self.form is None else self.form.channels


@dataclass(frozen=True)
class Network:
    """A traced model: the copy that holds the modules, and the sites in the order they run."""

    root: fx.GraphModule
    sites: tuple[Site, ...]

    @cached_property
    def by_node(self) -> dict[fx.Node, Site]:
        """The site of each node."""
        return {site.node: site for site in self.sites}


def as_tuple(example_inputs: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of forward that `example_inputs` stands for."""
    return tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose weights are plain parameters, whatever pruned or parametrized them.

    Raises:
        ModelError: The model can not be copied.
        WeightsError: A weight is NaN or infinite.
    """
    # Computed weights (torch.nn.utils.prune leaves them as attributes) are no leaves of autograd and refuse deepcopy.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        duplicate = copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} can not be copied: {error}", hint="make copy.deepcopy(model) work"
        ) from error
    for module in duplicate.modules():
        for name in _pruned_names(module):
            prune.remove(module, name)  # type: ignore[no-untyped-call]
        _settle_parametrizations(module)
    _refuse_nan(duplicate)
    return duplicate.eval()


def trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> Network:
    """Trace a model and say of each node what it is.

    The network shares the model's layers and changes none of them; in-place ones it replaces by pure twins.

    Raises:
        TraceError: torch.fx cannot follow forward; the message names the line.
        ModelError: forward fails on the example inputs.
    """
    root = _symbolic_trace(model)
    _make_pure(root)
    shapes = _shapes(root, example_inputs)
    modules = dict(root.named_modules())
    wanted = wanted_axes(root.graph, modules, shapes)
    calls = Counter(node.target for node in root.graph.nodes if node.op == "call_module")
    sites: list[Site] = []
    # what an operator may read of its own output is the shape: the axis is settled once it is matched
    forms = {
        node: None if shape is None else Form(shape, wanted.get(node, CHANNEL_AXIS)) for node, shape in shapes.items()
    }
    for node in root.graph.nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        chosen, operands = operator_for(node, module, forms)
        operand_forms = tuple(form for form in map(forms.get, operands) if form is not None)
        forms[node] = form = _settled(forms[node], chosen.axis(node, operand_forms))
        shared = calls[node.target] > 1 and module is not None and any(True for _ in module.parameters())
        sites.append(Site(node, chosen, module, operands, operand_forms, form, shared))
    return Network(root, tuple(sites))


def _settled(form: Form | None, axis: int | None) -> Form | None:
    return form if form is None or axis is None else Form(form.shape, axis)


def _pruned_names(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)]


def _settle_parametrizations(module: nn.Module) -> None:
    """Turn parametrized tensors into plain ones.

    Not by torch's `remove_parametrizations`: it takes the tensor off the class, which a copy shares with its original.
    """
    if not parametrize.is_parametrized(module):
        return
    groups: Any = module.parametrizations
    kinds = {name: type(group.original) for name, group in groups.items()}
    tensors = {name: getattr(module, name).detach().clone() for name in kinds}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, tensor in tensors.items():
        if issubclass(kinds[name], nn.Parameter):
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)


def _refuse_nan(model: nn.Module) -> None:
    bad = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    # a buffer may hold infinities on purpose, as an attention mask does
    bad += [name for name, buffer in model.named_buffers() if bool(torch.isnan(buffer).any())]
    if bad:
        raise WeightsError(
            f"{bad[0]} holds NaN or infinite values", hint="load a checkpoint whose training did not diverge"
        )


class _Tracer(fx.Tracer):
    """Follows the user's modules, and takes the modules of an earlier shrinking whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Gather | IndexAdd) or super().is_leaf_module(m, module_qualified_name)


def _symbolic_trace(model: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    tracer.record_stack_traces = True
    try:
        return fx.GraphModule(model, tracer.trace(model))
    except Exception as error:
        raise untraceable(model, error) from error


def _make_pure(root: fx.GraphModule) -> None:
    """Replace in-place operations: a later reader of the overwritten tensor reads the operation's result."""
    order = {node: place for place, node in enumerate(root.graph.nodes)}
    modules = dict(root.named_modules())
    called = {node: modules[str(node.target)] if node.op == "call_module" else None for node in order}
    for node in [node for node, module in called.items() if _is_in_place(node, module)]:
        overwritten = node.args[0]
        if node.op == "call_module":
            pure = copy.deepcopy(modules[str(node.target)])
            pure.inplace = False
            root.set_submodule(str(node.target), pure)
        elif node.op == "call_method":
            node.target = str(node.target)[:-1]
        elif node.target is F.relu or node.target is F.relu6:
            node.args = node.args[:1]
        else:
            node.target = _PURE_FUNCTIONS.get(node.target, node.target)
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        if isinstance(overwritten, fx.Node):
            for reader in [user for user in overwritten.users if order[user] > order[node]]:
                reader.replace_input_with(overwritten, node)
    root.recompile()


def _is_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return getattr(module, "inplace", False) is True
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__") and callable(getattr(Tensor, name[:-1], None))
    if node.op != "call_function":
        return False
    by_place = node.target in (F.relu, F.relu6) and len(node.args) > 1 and node.args[1] is True
    return node.target in _PURE_FUNCTIONS or node.kwargs.get("inplace") is True or by_place


class _ShapeReader(fx.Interpreter):
    """Runs the network once and notes the shape of each tensor."""

    def __init__(self, root: fx.GraphModule) -> None:
        super().__init__(root)
        self.shapes: dict[fx.Node, torch.Size | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = result.shape if isinstance(result, Tensor) and n.op != "output" else None
        return result


def _shapes(root: fx.GraphModule, example_inputs: tuple[Any, ...]) -> dict[fx.Node, torch.Size | None]:
    reader = _ShapeReader(root)
    try:
        with torch.no_grad():
            reader.run(*example_inputs)
    except Exception as error:
        shown = ", ".join(str(list(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in example_inputs)
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"forward fails on example inputs of shape {shown}: {cause}",
            hint="give example_inputs of the shape, type and device that the model takes",
        ) from error
    return reader.shapes
