"""Surgery: the shrunk network, made from a plan.

Start with `rewrite`. Each operator rebuilds its own node through a `Surgery`, which holds the new graph and hides how
nodes and modules are placed; surviving modules keep their names, so the state dict keeps its keys.
"""

from __future__ import annotations

import copy
import keyword
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.errors import ModelError
from edgeprune.shrinking.additions import Gather
from edgeprune.shrinking.channels import Layout, Vector
from edgeprune.shrinking.copying import duplicate, in_eval_mode
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form
from edgeprune.shrinking.graph import Site
from edgeprune.shrinking.plan import Plan
from edgeprune.shrinking.settled import settle_numbers
from edgeprune.shrinking.tracing import add_node

_TAKEN = frozenset({"graph", "_graph", "code", "_code", "meta"})
"""Attributes of an fx.GraphModule, which no module or parameter of it can be called."""


def rewrite(plan: Plan, class_name: str) -> tuple[fx.GraphModule, Mapping[fx.Node, fx.Node]]:
    """Build the shrunk network in eval mode; the network of the plan is left as it is.

    Returns:
        The network, and for each live node of the plan's the node that holds what is left of it, unless nothing reads
        it.

    Raises:
        ShrinkError: The plan contradicts itself.
        ModelError: A module has a name that torch.fx needs.
    """
    surgery = Surgery(plan)
    for site in plan.network.sites:
        if plan.decisions[site.node].live:
            surgery.place(site)
    return in_eval_mode(surgery.finish(class_name)), surgery.values


class Surgery:
    """The new graph in the making."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = fx.Graph()
        self.passed_on: dict[fx.Node, Vector] = {}
        self._made: dict[str, nn.Module | Tensor] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        self._selected: dict[tuple[fx.Node, bytes], fx.Node] = {}
        model = plan.network.root.model
        weight = next((x for x in chain(model.parameters(), model.buffers()) if x.is_floating_point()), None)
        self.device = torch.device("cpu") if weight is None else weight.device
        self._dtype = torch.get_default_dtype() if weight is None else weight.dtype

    def place(self, site: Site) -> None:
        """Add the shrunk form of a site."""
        source = self.plan.decisions[site.node].sized_by
        made = site.operator.rebuild(site, self) if source is None else settle_numbers(site, self, source)
        self.values[site.node] = made

    def pass_on(self, site: Site, bias: Vector) -> Vector:
        """Leave a bias [C] that a layer did not have to the normalisation behind it, and return what the layer keeps.

        In training a batch normalisation takes the mean off, so in front of it a bias has no gradient and no use.
        """
        readers = list(site.node.users)
        if site.shared or site.kernels.layer.bias is not None or len(readers) != 1 or not bias.any():
            return bias
        reader = self.plan.network.by_node[readers[0]]
        if not reader.operator.takes_bias(reader) or not self.plan.decisions[reader.node].live:
            return bias
        self.passed_on[reader.node] = bias
        return np.zeros_like(bias)

    def value(self, node: fx.Node) -> fx.Node:
        """The new node that holds what is left of an old one."""
        return self.values[node]

    def select(self, node: fx.Node, want: Layout) -> fx.Node:
        """What is left of an old node, with exactly the channels `want`; they must be there."""
        have = self.plan.layouts[node]
        if np.array_equal(have, want):
            return self.value(node)
        key = (node, want.tobytes())
        if key not in self._selected:
            place = {int(channel): index for index, channel in enumerate(have)}
            index = torch.tensor([place[int(channel)] for channel in want], dtype=torch.int64, device=self.device)
            form = self.plan.network.by_node[node].form
            axis = CHANNEL_AXIS if form is None else form.axis
            name = self._fresh(f"{node.name}_select", Gather(index, len(have), axis=axis))
            self._selected[key] = self.graph.call_module(name, (self.value(node),))
        return self._selected[key]

    def copy(self, site: Site) -> fx.Node:
        """The node as it was, on the new values of its inputs."""
        return self._copy_on(site, self.value)

    def copy_whole(self, site: Site) -> fx.Node:
        """The node as it was, on inputs with all their channels in the first order."""

        def whole(node: fx.Node) -> fx.Node:
            channels = self.plan.network.by_node[node].channels
            return self.select(node, np.arange(channels)) if channels else self.value(node)

        return self._copy_on(site, whole)

    def call_module(self, site: Site, module: nn.Module, *values: fx.Node) -> fx.Node:
        """Call `module` under the name that the site's own module has, with what else that one is told."""
        self._made[str(site.node.target)] = module
        named = {name: value for name, value in site.node.kwargs.items() if name != "input"}
        rest, named = fx.node.map_arg((site.node.args[len(values) :], named), self.value)
        return add_node(self.graph, "call_module", str(site.node.target), (*values, *rest), named, site.node.name)

    def call_new(self, site: Site, module: nn.Module, *values: fx.Node, kind: str = "index") -> fx.Node:
        """Call a module that the masked network does not have."""
        return add_node(self.graph, "call_module", self._fresh(f"{site.node.name}_{kind}", module), values, {})

    def call_function(self, site: Site, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Call a function in the site's place."""
        return add_node(self.graph, "call_function", function, args, {}, site.node.name)

    def call_method(self, site: Site, name: str, *args: Any) -> fx.Node:
        """Call a method of the first argument in the site's place."""
        return add_node(self.graph, "call_method", name, args, {}, site.node.name)

    def read_attribute(self, site: Site, tensor: Tensor) -> fx.Node:
        """Read `tensor` under the name that the site's own parameter or buffer has."""
        self._made[str(site.node.target)] = tensor
        return self.copy(site)

    def call_again(self, site: Site, values: Sequence[fx.Node]) -> fx.Node:
        """The node as it was, on these values of its operands."""
        given = dict(zip(site.operands, values, strict=True))
        return self._copy_on(site, given.__getitem__)

    def buffer(self, name: str, tensor: Tensor) -> fx.Node:
        """Read a tensor of constants that the masked network does not have."""
        return self.graph.get_attr(self._fresh(name, tensor))

    def constant_channels(self, numbers: Vector, form: Form) -> Tensor:
        """[1, C, 1, ...]: one number a channel on the form's channel axis, in the network's own type and place."""
        return form.lay_out(torch.from_numpy(numbers).to(device=self.device, dtype=self._dtype))

    def _fresh(self, name: str, made: nn.Module | Tensor) -> str:
        taken, number = name, 1
        while taken in self._made or hasattr(self.plan.network.root.model, taken):
            taken, number = f"{name}_{number}", number + 1
        self._made[taken] = made
        return taken

    def finish(self, class_name: str) -> fx.GraphModule:
        """The network of what was placed. Its tensors are its own: those of a traced model are the user's."""
        shrunk = fx.GraphModule(nn.Module(), fx.Graph(), class_name)
        owned: dict[int, Any] = {}
        for node in self.graph.nodes:
            if node.op not in ("call_module", "get_attr"):
                continue
            made: Any = self._made.get(node.target)
            if made is None and node.op == "call_module":
                made = self._kept(node.target, owned)
            elif made is None:
                made = copy.deepcopy(self.plan.network.root.attribute(node.target), owned)
            install(shrunk, node.target, made)
        shrunk.graph = self.graph  # generates the code, once
        if any(not node.users and node.op not in ("placeholder", "output") for node in self.graph.nodes):
            self.graph.eliminate_dead_code()
            shrunk.delete_all_unused_submodules()
            shrunk.recompile()
        return shrunk

    def _kept(self, name: str, owned: dict[int, Any]) -> nn.Module:
        module = self.plan.network.root.modules[name]
        return duplicate(module, owned) if module._parameters or module._buffers or module._modules else module

    def _copy_on(self, site: Site, value: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """The node without what the tracer left on it: paths of the user's files, and types, which do not pickle."""
        node = site.node
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        return add_node(self.graph, node.op, node.target, args, kwargs, node.name)


def install(root: nn.Module, name: str, value: Any) -> None:
    """Set an attribute by its dotted name, unless a module that came before brought it along.

    Raises:
        ModelError: torch.fx has another use for the name.
    """
    *path, last = steps = name.split(".")
    if steps[0] in _TAKEN or any(map(keyword.iskeyword, steps)):
        raise ModelError(f"torch.fx can not hold a module named {name}", hint="give it another name in the model")
    for step in path:
        inner = root._modules.get(step)
        if inner is None:
            root._modules[step] = inner = nn.Module()
        root = inner
    if isinstance(value, nn.Module):
        before = root._modules.get(last)
        root._modules[last] = value
        if before is not None and before is not value:  # a layer whose activation, called first, stands inside of it
            value._modules.update(before._modules)
    elif hasattr(root, last):
        return
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        root.register_buffer(last, value)
    else:
        setattr(root, last, value)
