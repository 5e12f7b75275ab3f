"""A graph in JSON: nodes, their arguments, and the functions that they may name. Start with `written_graph`.

What is read may come from anywhere, so nothing in it is run: functions come from a list of torch's own that take and
give tensors, and every name that ends up in generated code is checked to be a name.
"""

from __future__ import annotations

import functools
import keyword
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.overrides import get_overridable_functions

from edgeprune.errors import ModelError
from edgeprune.shrinking.operators.pointwise import FUNCTIONS

_OPERATORS = (
    "abs", "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "invert", "le", "lt", "matmul", "mod", "mul", "ne",
    "neg", "not_", "or_", "pos", "pow", "sub", "truediv", "xor",
)  # fmt: skip
_MAKERS = ("arange", "empty", "eye", "full", "linspace", "ones", "scalar_tensor", "tensor", "zeros")
_SYMBOLIC = ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum")
_ATTRIBUTES = frozenset({"T", "device", "dtype", "imag", "mH", "mT", "ndim", "real", "shape"})
_NOT_METHODS = frozenset({
    "apply_", "map_", "map2_", "module_load", "numpy", "register_hook", "register_post_accumulate_grad_hook", "storage",
    "share_memory_", "untyped_storage",
})  # fmt: skip
_UNLISTED_METHODS = frozenset({"unflatten"})
"""Methods that torch does not list among those it lets others override."""

_DOTTED = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ODD = "use a description that edgeprune wrote: this one names what no shrunk network holds"


class NeedsCodeError(Exception):
    """A part of a network that only the user's own code can make; the message names it."""


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """The functions that a description may name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        overridable = get_overridable_functions()
    known: dict[str, Callable[..., Any]] = {}
    for prefix, home in (("torch.nn.functional", F), ("torch", torch), ("torch.special", torch.special)):
        own = {id(one) for one in overridable.get(home, ())} | {id(one) for one in FUNCTIONS}
        own |= {id(one) for one in overridable.get(torch.functional, ())}
        for name, value in vars(home).items():
            if not name.startswith("_") and id(value) in own:
                known[f"{prefix}.{name}"] = value
    known |= {f"torch.{name}": getattr(torch, name) for name in (*_MAKERS, *_SYMBOLIC)}
    known |= {f"operator.{name}": getattr(operator, name) for name in _OPERATORS}
    known |= {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "sqrt", "trunc")}
    return known | {"builtins.getattr": getattr, "builtins.int": int}


@functools.cache
def _names() -> dict[int, str]:
    return {id(function): name for name, function in reversed(list(functions().items()))}


@functools.cache
def _methods() -> frozenset[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {getattr(one, "__name__", "_") for one in get_overridable_functions()[Tensor]}
    return frozenset(name for name in names if not name.startswith("_")) - _NOT_METHODS | _UNLISTED_METHODS


def written_graph(graph: fx.Graph) -> list[dict[str, Any]]:
    """The nodes of a graph, in the order they run.

    Raises:
        NeedsCodeError: A node calls or names what `read_graph` refuses, such as a function that is not torch's.
    """
    nodes = [
        {
            "op": node.op,
            "name": node.name,
            "target": _written_target(node),
            "args": [written(one) for one in node.args],
            "kwargs": {key: written(one) for key, one in node.kwargs.items()},
        }
        for node in graph.nodes
    ]
    try:
        read_graph(nodes)
    except ModelError as refusal:
        raise NeedsCodeError(f"the graph: {refusal}") from refusal
    return nodes


def read_graph(nodes: Any) -> fx.Graph:
    """The graph of `written_graph`.

    Raises:
        ModelError: A node is none that `written_graph` writes.
    """
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for node in nodes:
        op, name, target = node["op"], str(node["name"]), node["target"]
        _require_name(name)
        for key in node["kwargs"]:
            _require_name(key)
        args = tuple(read(one, made) for one in node["args"])
        kwargs = {key: read(one, made) for key, one in node["kwargs"].items()}
        called = _read_target(op, target, args)
        made[name] = graph.create_node(op, called, args, kwargs, name=name)
    return graph


def written(value: Any) -> Any:
    """An argument in JSON.

    Raises:
        NeedsCodeError: It is of a type of the user's own.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, slice):
        return {"slice": [written(one) for one in (value.start, value.stop, value.step)]}
    if isinstance(value, dict):
        return {"dict": [[written(key), written(one)] for key, one in value.items()]}
    if isinstance(value, list):
        return [written(one) for one in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {"tuple": [written(one) for one in value]}
    if value is Ellipsis:
        return {"ellipsis": None}
    raise NeedsCodeError(f"an argument of type {kind.__name__}")


def read(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    """The argument of `written`.

    Raises:
        ModelError: It is none that `written` writes.
    """
    if isinstance(value, list):
        return [read(one, nodes) for one in value]
    if not isinstance(value, dict):
        return value
    kind: str
    inner: Any
    ((kind, inner),) = value.items() if len(value) == 1 else (("", None),)
    if kind == "node" and inner in nodes:
        return nodes[inner]
    if kind == "float":
        return float(inner)
    if kind in ("dtype", "memory_format", "layout"):
        found = getattr(torch, str(inner), None)
        if isinstance(found, getattr(torch, kind)):
            return found
    if kind == "device":
        return torch.device(str(inner))
    if kind == "slice":
        return slice(*(read(one, nodes) for one in inner))
    if kind == "tuple":
        return tuple(read(one, nodes) for one in inner)
    if kind == "dict":
        return {read(key, nodes): read(one, nodes) for key, one in inner}
    if kind == "ellipsis":
        return ...
    raise ModelError(f"the description holds {str(value)[:60]!r}, which is no argument", hint=_ODD)


def require_dotted(name: Any) -> str:
    """A name of a module or a tensor, such as "blocks.0.conv".

    Raises:
        ModelError: It is none.
    """
    if not isinstance(name, str) or not _DOTTED.fullmatch(name):
        raise ModelError(f"the description holds {str(name)[:60]!r}, which is no name", hint=_ODD)
    return name


def _require_name(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
        raise ModelError(f"the description holds {name[:60]!r}, which is no name", hint=_ODD)


def _written_target(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if isinstance(node.target, torch._ops.OpOverload):
        name_of: Any = node.target.name
        return str(name_of())
    name = _names().get(id(node.target))
    if name is None:
        raise NeedsCodeError(f"{node.name} calls {getattr(node.target, '__name__', node.target)}")
    return name


def _read_target(op: str, target: Any, args: tuple[Any, ...]) -> Any:
    if op in ("placeholder", "output"):
        _require_name(str(target))
        return target
    if op in ("call_module", "get_attr"):
        return require_dotted(target)
    if op == "call_method" and target in _methods():
        return target
    if op == "call_function" and isinstance(target, str):
        found = _aten(target) if target.startswith("aten::") else functions().get(target)
        if found is not None and (found is not getattr or (len(args) == 2 and args[1] in _ATTRIBUTES)):
            return found
    raise ModelError(f"the description calls {str(target)[:60]!r}, which edgeprune does not run", hint=_ODD)


def _aten(name: str) -> Any:
    """An operator that makes a tensor of tensors and writes none; None if it is no such one."""
    packet, _, overload = name.removeprefix("aten::").partition(".")
    if not packet.isidentifier() or not (overload or "default").isidentifier():
        return None
    found = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
    if not isinstance(found, torch._ops.OpOverload) or found._schema.is_mutable:
        return None
    takes_tensors = any("Tensor" in str(one.type) for one in found._schema.arguments)
    return found if takes_tensors or packet in _MAKERS else None
