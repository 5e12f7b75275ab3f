"""What torch.fx sees of a model: its graph and the modules that it calls, with in-place operations made pure.

Start with `symbolic_trace`; what it can not follow goes through `exported`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partialmethod
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.additions import Gather, IndexAdd
from edgeprune.shrinking.aliases import is_number, refuse_partial_write
from edgeprune.shrinking.constant_channels import ConstantChannels
from edgeprune.shrinking.copying import bare_twin, duplicate
from edgeprune.shrinking.kernel_columns import KernelColumns, ShiftedImage
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.sizes import HeldSizes
from edgeprune.shrinking.subclasses import as_torch_layer, is_torch_layer
from edgeprune.user_code import untraceable

_OWN = (Gather, IndexAdd, ConstantChannels, KernelColumns, ShiftedImage)

_PURE_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    torch.clamp_: torch.clamp,
    F.relu_: F.relu,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
    F.hardtanh_: F.hardtanh,
    F.selu_: F.selu,
    F.celu_: F.celu,
    getattr(F, "threshold_"): F.threshold,  # noqa: B009 - unknown to torch's types
}


@dataclass(frozen=True)
class Traced:
    """A graph and what it refers to; no code is generated for it, since nothing runs it.

    Attributes:
        model: The model that was traced, with in-place modules still in it.
        modules: The modules that nodes call, by name; in-place ones as pure twins, subclasses of layers as the layers.
        sizes: The sizes of the inputs that it holds for; None where these are all that the model takes.
        functional: For modules that stand for functional calls on bare parameters, the names of these in the model.
        left_out: Names of forward's arguments that the example leaves out: they have their defaults for good.
    """

    model: nn.Module
    graph: fx.Graph
    modules: dict[str, nn.Module]
    sizes: HeldSizes | None = None
    functional: dict[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, None where it calls none."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def attribute(self, name: str) -> Any:
        """The parameter, buffer or other attribute that a get_attr node reads."""
        return operator.attrgetter(name)(self.model)


def symbolic_trace(model: nn.Module, given: int) -> Traced:
    """Trace a model and make its operations pure; the model and its modules are not changed.

    Args:
        model: What is traced.
        given: How many positional arguments forward gets; those behind them that have a default are no inputs.

    Raises:
        TraceError: torch.fx cannot follow forward; the message names the line.
    """
    tracer = _Tracer(given)
    try:
        graph = tracer.trace(model)
    except Exception as error:
        raise untraceable(model, error) from error
    return replace(traced(model, graph), left_out=tuple(tracer.left_out))


def traced(
    model: nn.Module,
    graph: fx.Graph,
    sizes: HeldSizes | None = None,
    functional: Mapping[str, Mapping[str, str]] | None = None,
) -> Traced:
    """A graph of a model's modules with its operations made pure; the model and its modules are not changed."""
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name in called}
    twins = {id(module): as_torch_layer(module) for module in modules.values()}
    found = Traced(
        model, graph, {name: twins[id(module)] for name, module in modules.items()}, sizes, dict(functional or {})
    )
    _make_pure(found)
    return found


class _Proxy(fx.Proxy):
    """Notes x += y as what it is: fx takes it for x = x + y, but other names of the tensor see the change."""

    def _write(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        pure = _PURE_FUNCTIONS[function].__name__.rstrip("_")
        return self.tracer.create_proxy("call_function", function, (self, other), {}, name=pure)

    __iadd__ = partialmethod(_write, operator.iadd)
    __isub__ = partialmethod(_write, operator.isub)
    __imul__ = partialmethod(_write, operator.imul)
    __itruediv__ = partialmethod(_write, operator.itruediv)
    __ifloordiv__ = partialmethod(_write, operator.ifloordiv)
    __imod__ = partialmethod(_write, operator.imod)
    __ipow__ = partialmethod(_write, operator.ipow)
    __iand__ = partialmethod(_write, operator.iand)
    __ior__ = partialmethod(_write, operator.ior)
    __ixor__ = partialmethod(_write, operator.ixor)


class _Tracer(fx.Tracer):
    """Follows the user's modules, and takes the modules of an earlier shrinking whole.

    It notes no scopes and stacks on the nodes, which nobody reads here and which take half of fx's own time.
    """

    def __init__(self, given: int) -> None:
        super().__init__()
        self._given = given
        self.left_out: list[str] = []

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        # a proxy is no None: forward would go the way of a mask that nobody gives
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        for place in range(1 + self._given, len(arguments)):
            node = arguments[place].node
            if node.args:  # the default
                self.left_out.append(node.target)
                arguments[place] = node.args[0]
                self.graph.erase_node(node)
        return function, arguments

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = super().is_leaf_module(m, module_qualified_name)
        return known or isinstance(m, _OWN) or is_torch_layer(m)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        # nearly all that forward asks a module for, and fx's questions are long
        if isinstance(attr_val, nn.Module):
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        if type(m) is nn.Identity and len(args) == 1 and not kwargs and is_plain(m):
            return args[0]  # it stands for a layer that is left out: 250 times in timm's HRNet-W18
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return self.create_proxy("call_module", name, args, kwargs)
        return forward(*args, **kwargs)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        return add_node(self.graph, kind, target, args, kwargs, name, type_expr)

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> fx.Proxy:
        given = self.create_arg(kwargs) if kwargs else kwargs
        node = self.create_node(kind, target, self.create_arg(args), given, name, type_expr)
        return proxy_factory_fn(node) if proxy_factory_fn else self.proxy(node)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if type(a) is _Proxy:
            return a.node
        if type(a) is tuple:
            return tuple(map(self.create_arg, a))
        return a if type(a) in (int, float, bool, str, type(None)) else super().create_arg(a)


def add_node(
    graph: fx.Graph,
    kind: str,
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    name: str | None = None,
    type_expr: Any = None,
) -> fx.Node:
    """graph.create_node, without its search of the arguments for symbolic sizes, which takes most of its time."""
    node = graph.create_node(kind, target, (), {}, name, type_expr)
    # past fx.Node.__setattr__, which takes the node out of a table of kinds and targets and puts it back
    if args:
        object.__setattr__(node, "args", args)
    if kwargs:
        object.__setattr__(node, "kwargs", dict(kwargs))
    return node


def has_parameters(module: nn.Module) -> bool:
    """Whether the module or one inside it has any."""
    return any(parameter is not None for parameter in module._parameters.values()) or any(
        child is not None and has_parameters(child) for child in module._modules.values()
    )


def _make_pure(traced: Traced) -> None:
    """Replace in-place operations: a later reader of the overwritten tensor reads the operation's result.

    Raises:
        TraceError: A tensor is overwritten in part, which torch.export can follow.
    """
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    for node in [node for node in order if _is_in_place(node, traced.module(node))]:
        overwritten = node.args[0]
        if isinstance(overwritten, fx.Node) and is_number(overwritten):
            node.target = _PURE_FUNCTIONS[node.target]  # numbers are never overwritten
            continue
        refuse_partial_write(node, order, traced.modules)
        if node.op == "call_module":
            module = traced.modules[str(node.target)]
            pure = bare_twin(module) if is_plain(module) else duplicate(module, {})
            setattr(pure, "inplace", False)  # noqa: B010 - a plain attribute, which nn.Module's types do not know
            traced.modules[str(node.target)] = pure
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


def _is_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        # not by getattr, which takes long to find nothing in a module
        return vars(module).get("inplace", getattr(type(module), "inplace", False)) is True
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    if node.op != "call_function":
        return False
    if node.target is operator.setitem or "out" in node.kwargs:
        return True
    by_place = node.target in (F.relu, F.relu6) and len(node.args) > 1 and node.args[1] is True
    return node.target in _PURE_FUNCTIONS or node.kwargs.get("inplace") is True or by_place
