"""An exported graph, raised back into a graph of modules and functions, as torch.fx would have traced it.

Start with `raise_graph`. A call of a layer of torch.nn becomes one call of that layer again, under its own name, so the
state dict keeps its keys; weights that a module of the user's hands to a functional form (`F.conv2d(x, self.weight)`)
become the layer of torch.nn that it stands for; every other operator goes through `aten.raised`.
"""

from __future__ import annotations

import inspect
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from edgeprune.errors import TraceError
from edgeprune.shrinking.aten import operator_name, raised
from edgeprune.shrinking.layers import layer_of
from edgeprune.shrinking.operators.kernels import is_plain

_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size")


@dataclass(frozen=True)
class _Call:
    """One call of a layer: `nodes` of the exported graph, read from `source`, stand for `module` under `name`.

    `bare` are the names of its tensors in the model, by role, where they are no layer's.
    """

    name: str
    module: nn.Module
    source: fx.Node
    nodes: tuple[fx.Node, ...]
    bare: Mapping[str, str] = field(default_factory=dict)


def raise_graph(
    program: torch.export.ExportedProgram, model: nn.Module, inputs: tuple[Any, ...]
) -> tuple[fx.GraphModule, dict[str, Mapping[str, str]]]:
    """The exported program of `model` as a graph of its own modules.

    Args:
        program: Functional: of torch.export and `run_decompositions({})`.
        model: What was exported; its modules are called, not copied.
        inputs: The positional arguments that it was exported with: their structure is that of the graph's inputs.

    Returns:
        The graph, and `Traced.functional` for it.

    Raises:
        TraceError: forward writes a buffer, or gives something else than tensors in tuples, lists and dicts.
    """
    raiser = _Raiser(program, model, inputs)
    return raiser.run(), {call.name: call.bare for call in raiser.calls.values() if call.bare}


def leaf_node(graph: fx.Graph, arguments: Sequence[fx.Node], path: Sequence[Any]) -> fx.Node:
    """The node of one tensor among the arguments of forward, which stands where torch's pytree says."""
    value: fx.Node = arguments[path[0].idx]
    for key in path[1:]:
        if isinstance(key, pytree.GetAttrKey):
            value = graph.call_function(getattr, (value, key.name))
        else:
            value = graph.call_function(operator.getitem, (value, getattr(key, "idx", getattr(key, "key", None))))
    return value


class _Raiser:
    """The new graph in the making."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.program, self.model, self.inputs = program, model, inputs
        self.graph = fx.Graph()
        self.parts: dict[str, Any] = {}
        self.values: dict[fx.Node, Any] = {}
        self.tensors = self._tensors()
        self.calls = self._layer_calls()

    def run(self) -> fx.GraphModule:
        self._place_inputs()
        inside = {node for call in self.calls.values() for node in call.nodes}
        for node in self.program.graph.nodes:
            if node in self.calls:
                call = self.calls[node]
                self.parts[call.name] = call.module
                self.values[node] = self.graph.call_module(call.name, (self._value(call.source),))
            elif node.op == "call_function" and node not in inside and not _is_check(node):
                self._place(node)
        self._place_output()
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        called = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        parts = {name: part for name, part in self.parts.items() if name in called}
        return fx.GraphModule(parts, self.graph, class_name=type(self.model).__name__)

    def _tensors(self) -> dict[fx.Node, str]:
        """Parameters, buffers and constants among the graph's inputs, by their names in the model."""
        kinds = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        named: dict[fx.Node, str] = {}
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and kinds[node.name].kind != InputKind.USER_INPUT:
                named[node] = str(kinds[node.name].target)
        return named

    def _tensor(self, node: fx.Node) -> Tensor | None:
        """The parameter, buffer or constant that a node of the exported graph stands for."""
        name = self.tensors.get(node)
        if name is None:
            return None
        found = self.program.constants.get(name)
        return found if isinstance(found, Tensor) else self.program.state_dict.get(name)

    def _layer_calls(self) -> dict[fx.Node, _Call]:
        """Calls of layers, by the last node of each: only of layers whose weights nothing else reads."""
        calls: dict[fx.Node, _Call] = {}
        for nodes in self._nodes_of_leaves().values():
            call = self._leaf_call(nodes)
            if call is not None:
                calls[call.nodes[-1]] = call
        taken = {node for call in calls.values() for node in call.nodes}
        for node in self.program.graph.nodes:
            layer = None if node in taken else layer_of(node, self.tensors, self._tensor, self.model)
            if layer is not None:
                whole = (node, *node.users) if isinstance(node.meta["val"], tuple | list) else (node,)
                bare = layer.tensors if layer.bare else {}
                calls[whole[-1]] = _Call(layer.name, layer.module, layer.source, whole, bare)
        return self._undisputed(calls)

    def _undisputed(self, calls: dict[fx.Node, _Call]) -> dict[fx.Node, _Call]:
        by_name: dict[str, list[_Call]] = defaultdict(list)
        for call in calls.values():
            by_name[call.name].append(call)
        disputed = set()
        for name, several in by_name.items():
            inside = {node for call in several for node in call.nodes}
            bare = {tensor for call in several for tensor in call.bare.values()}
            own = [node for node, tensor in self.tensors.items() if tensor.rpartition(".")[0] == name or tensor in bare]
            elsewhere = any(user not in inside and user.op != "output" for node in own for user in node.users)
            if elsewhere or len({(repr(call.module), *sorted(call.bare.items())) for call in several}) > 1:
                disputed.add(name)
        kept = {node: call for node, call in calls.items() if call.name not in disputed}
        # the same layer called twice is one module, though each call found its own
        first = {call.name: call.module for call in reversed(list(kept.values()))}
        return {node: replace(call, module=first[call.name]) for node, call in kept.items()}

    def _nodes_of_leaves(self) -> Mapping[str, list[fx.Node]]:
        groups: dict[str, list[fx.Node]] = defaultdict(list)
        modules = dict(self.model.named_modules())
        for node in self.program.graph.nodes:
            for key, (name, _) in (node.meta.get("nn_module_stack") or {}).items():
                if node.op == "call_function" and _is_leaf(modules.get(str(name).partition("@")[0])):
                    groups[key].append(node)
                    break
        return groups

    def _leaf_call(self, nodes: list[fx.Node]) -> _Call | None:
        """The call that the nodes of one layer are, if it has one input and one output."""
        inside = set(nodes)
        stack = nodes[0].meta["nn_module_stack"].values()
        modules = dict(self.model.named_modules())
        name = next(str(n).partition("@")[0] for n, _ in stack if _is_leaf(modules.get(str(n).partition("@")[0])))
        module = modules[name]
        own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        sources: dict[fx.Node, None] = {}
        for node in nodes:
            for read in node.all_input_nodes:
                tensor = self._tensor(read)
                if read not in inside and isinstance(read.meta.get("val"), Tensor) and id(tensor) not in own:
                    sources[read] = None
        results = [node for node in nodes if any(user not in inside for user in node.users)]
        whole = len(sources) == 1 and len(results) == 1 and results[0] is nodes[-1]
        return _Call(name, module, next(iter(sources)), tuple(nodes)) if whole else None

    def _place_inputs(self) -> None:
        """A node for each argument of forward, and one for each tensor inside of it."""
        names = _argument_names(self.model, len(self.inputs))
        arguments = [self.graph.placeholder(name) for name in names]
        leaves = [node for node in self.program.graph.nodes if node.op == "placeholder" and node not in self.tensors]
        paths, _ = pytree.tree_flatten_with_path(self.inputs)
        for leaf, (path, _) in zip(leaves, paths, strict=True):
            self.values[leaf] = leaf_node(self.graph, arguments, path)

    def _place(self, node: fx.Node) -> None:
        op, target, args, kwargs = raised(node)
        args, kwargs = fx.node.map_arg((args, kwargs), self._value)
        if target is operator.getitem:
            args = _joined(*args)
            if isinstance(args[1], tuple) and all(place == slice(None) for place in args[1]):
                self.values[node] = args[0]
                return
        self.values[node] = self.graph.create_node(op, target, args, kwargs)

    def _value(self, node: fx.Node) -> Any:
        if node not in self.values and node in self.tensors:
            name = self.tensors[node]
            self.parts[name] = self._tensor(node)
            self.values[node] = self.graph.get_attr(name)
        return self.values[node]

    def _place_output(self) -> None:
        results: list[Any] = []
        (output,) = (node for node in self.program.graph.nodes if node.op == "output")
        for spec, value in zip(self.program.graph_signature.output_specs, output.args[0], strict=True):
            if spec.kind == OutputKind.BUFFER_MUTATION:
                raise TraceError(
                    f"{type(self.model).__name__}.forward writes {spec.target}, which a shrunk network can not",
                    hint="write it only in training, under `if self.training`",
                )
            if spec.kind == OutputKind.USER_OUTPUT:
                results.append(self._value(value) if isinstance(value, fx.Node) else value)
        structure = pytree.tree_unflatten(results, self.program.call_spec.out_spec)
        self.graph.output(_as_written(structure))


def _joined(source: Any, places: Any) -> tuple[Any, Any]:
    """A slice of a slice along later axes, as one: torch.export cuts one axis at a time."""
    if not isinstance(source, fx.Node) or source.target is not operator.getitem or not isinstance(places, tuple):
        return source, places
    before = source.args[1]
    if not isinstance(before, tuple) or not all(isinstance(place, slice) for place in before):
        return source, places
    if any(place != slice(None) for place in places[: len(before)]):
        return source, places
    return source.args[0], (*before, *places[len(before) :])


def _is_check(node: fx.Node) -> bool:
    return operator_name(node).partition(".")[0] in _CHECKS


def _is_leaf(module: nn.Module | None) -> bool:
    """Whether a call of it is a call of a layer of torch.nn with one argument, and nothing else."""
    if module is None or not type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Sequential):
        return False
    takes = inspect.signature(type(module).forward).parameters
    return len(takes) == 2 and is_plain(module)


def _argument_names(model: nn.Module, count: int) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{place}" for place in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names[:count]


def _as_written(value: Any) -> Any:
    """A structure of results in the types that a graph can return."""
    if isinstance(value, Mapping):
        return {key: _as_written(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_as_written, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_as_written, value))
    if value is None or isinstance(value, fx.Node | bool | int | float | str):
        return value
    raise TraceError(
        f"forward returns a {type(value).__name__}", hint="return tensors, or tuples, lists or dicts of them"
    )
