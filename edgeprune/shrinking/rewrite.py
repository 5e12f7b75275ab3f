"""Surgery: the shrunk network, made from a plan.

Start with `rewrite`. Each operator rebuilds its own node through a `Surgery`, which holds the new graph and hides how
nodes and modules are placed; surviving modules keep their names, so the state dict keeps its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.additions import Gather
from edgeprune.shrinking.channels import Layout, Vector
from edgeprune.shrinking.forms import CHANNEL_AXIS, Form
from edgeprune.shrinking.graph import Site
from edgeprune.shrinking.plan import Plan


def rewrite(plan: Plan, class_name: str) -> fx.GraphModule:
    """Build the shrunk network in eval mode; the network of the plan is left as it is.

    Raises:
        ShrinkError: The plan contradicts itself.
    """
    surgery = Surgery(plan)
    for site in plan.network.sites:
        if plan.decisions[site.node].live:
            surgery.place(site)
    shrunk = fx.GraphModule(surgery.modules, surgery.graph, class_name=class_name)
    shrunk.graph.eliminate_dead_code()
    shrunk.delete_all_unused_submodules()
    shrunk.recompile()
    return shrunk.eval()


class Surgery:
    """The new graph in the making."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = fx.Graph()
        # a twin of the traced root that shares its layers: new ones replace old ones here and leave the root whole
        self.modules = fx.GraphModule(plan.network.root, plan.network.root.graph)
        self._values: dict[fx.Node, fx.Node] = {}
        self._selected: dict[tuple[fx.Node, bytes], fx.Node] = {}
        weights = [tensor for tensor in plan.network.root.state_dict().values() if tensor.is_floating_point()]
        self.device = weights[0].device if weights else torch.device("cpu")
        self._dtype = weights[0].dtype if weights else torch.get_default_dtype()

    def place(self, site: Site) -> None:
        """Add the shrunk form of a site."""
        self._values[site.node] = site.operator.rebuild(site, self)

    def value(self, node: fx.Node) -> fx.Node:
        """The new node that holds what is left of an old one."""
        return self._values[node]

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
        return self._bare(self.graph.node_copy(site.node, self.value))

    def copy_whole(self, site: Site) -> fx.Node:
        """The node as it was, on inputs with all their channels in the first order."""

        def whole(node: fx.Node) -> fx.Node:
            channels = self.plan.network.by_node[node].channels
            return self.select(node, np.arange(channels)) if channels else self.value(node)

        return self._bare(self.graph.node_copy(site.node, whole))

    def call_module(self, site: Site, module: nn.Module, *values: fx.Node) -> fx.Node:
        """Call `module` under the name that the site's own module has."""
        self.modules.set_submodule(str(site.node.target), module)
        node = self.graph.create_node("call_module", str(site.node.target), values, {}, name=site.node.name)
        return self._bare(node)

    def call_new(self, site: Site, module: nn.Module, *values: fx.Node) -> fx.Node:
        """Call a module that the masked network does not have."""
        return self.graph.create_node("call_module", self._fresh(f"{site.node.name}_index", module), values, {})

    def call_function(self, site: Site, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Call a function in the site's place."""
        return self.graph.create_node("call_function", function, args, {}, name=site.node.name)

    def constant_channels(self, numbers: Vector, form: Form) -> Tensor:
        """[1, C, 1, ...]: one number a channel on the form's channel axis, in the network's own type and place."""
        return form.lay_out(torch.from_numpy(numbers).to(device=self.device, dtype=self._dtype))

    def _fresh(self, name: str, module: nn.Module) -> str:
        taken, number = name, 1
        while hasattr(self.modules, taken):
            taken, number = f"{name}_{number}", number + 1
        self.modules.add_module(taken, module)
        return taken

    @staticmethod
    def _bare(node: fx.Node) -> fx.Node:
        """Forget what the tracer left on a node: paths of the user's files, and annotations, which do not pickle."""
        node.meta = {}
        node.type = None
        return node
