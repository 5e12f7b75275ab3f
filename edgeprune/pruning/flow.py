"""Where the channels of a layer go: its feature map, and the layers that read it. Start with `Flows`.

The feature map of a layer is what leaves the batch-norm and the activation behind it, where nothing else reads what
lies between. A reader is direct if nothing but operations that leave channels apart, and zero at zero, lies between:
then a removed channel is a zero input of the reader, and the reader's weights alone decide what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.pruning.sites import Site, trace

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
               nn.Hardswish, nn.Tanh, nn.Softsign)  # fmt: skip
ACTIVATION_FUNCTIONS = (torch.relu, torch.relu_, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu,
                         functional.elu, functional.gelu, functional.silu, functional.mish, functional.hardswish,
                         functional.tanh)  # fmt: skip
ACTIVATION_METHODS = ("relu", "relu_", "tanh")
_APART = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
          nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d)  # fmt: skip
_APART_FUNCTIONS = (functional.dropout, functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d,
                    functional.adaptive_max_pool2d, functional.interpolate)  # fmt: skip
_SPATIAL = {2, 3, -1, -2}


@dataclass(frozen=True)
class Flow:
    """Of one layer: the nodes of its feature maps, one for each time it runs, and its direct readers by name.

    Where there is an `obstacle`, in words, not all readers are direct, and none are told.
    """

    maps: tuple[fx.Node, ...]
    readers: tuple[str, ...]
    obstacle: str


class Flows:
    """The flow of every site of a model, and a way to see what runs there.

    Args:
        model: In evaluation mode; it is run, and not changed.
        sites: As `find_sites` found them.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.module = fx.GraphModule(model, trace(model))
        self._modules = dict(model.named_modules())
        self.of: Mapping[str, Flow] = {site.layer: self._flow(site) for site in sites}

    def maps(self) -> list[tuple[str, fx.Node]]:
        """The feature maps of all sites, each with its layer's name."""
        return [(layer, node) for layer, flow in self.of.items() for node in flow.maps]

    def calls(self, layer: str) -> list[fx.Node]:
        """The nodes at which a layer runs."""
        return [node for node in self.module.graph.nodes if node.op == "call_module" and node.target == layer]

    def run(self, nodes: Sequence[fx.Node], *inputs: torch.Tensor) -> tuple[dict[fx.Node, torch.Tensor], Any]:
        """What the model computes at these nodes, whatever runs in place behind them, and what it puts out."""
        watching = Watching(self.module, set(nodes))
        output = watching.run(*inputs)
        return watching.seen, output

    def _flow(self, site: Site) -> Flow:
        calls = self.calls(site.layer)
        maps = tuple(self._map(node) for node in calls)
        if len(calls) != 1:
            return Flow(maps, (), "it runs more than once")
        readers: list[str] = []
        obstacle = self._follow(calls[0], site.batchnorm, readers)
        return Flow(maps, () if obstacle else tuple(dict.fromkeys(readers)), obstacle)

    def _map(self, node: fx.Node) -> fx.Node:
        while len(node.users) == 1:
            user = next(iter(node.users))
            if not (self._is_activation(user) or isinstance(self._module(user), _BatchNorm)):
                break
            node = user
        return node

    def _follow(self, node: fx.Node, batchnorm: str | None, readers: list[str]) -> str:
        """Collect the readers; what is in the way, or nothing."""
        for user in node.users:
            module = self._module(user)
            if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
                if len(self.calls(str(user.target))) > 1:
                    return f"{user.target} reads it and runs more than once"
                readers.append(str(user.target))
            elif user.target == batchnorm or self._is_activation(user) or self._keeps_apart(user):
                if obstacle := self._follow(user, batchnorm, readers):
                    return obstacle
            elif not _reads_the_shape(user):
                return f"{_what(user, module)} stands between it and the next layer"
        return ""

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def _is_activation(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self._module(node), ACTIVATIONS)
        return node.target in (ACTIVATION_FUNCTIONS if node.op == "call_function" else ACTIVATION_METHODS)

    def _keeps_apart(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is not None:
            return isinstance(module, _APART) or (isinstance(module, nn.Flatten) and module.start_dim == 1)
        if node.target in (torch.flatten, "flatten"):
            return _is([*node.args[1:2], node.kwargs.get("start_dim")][0], 1)
        if node.target in (torch.mean, "mean"):
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            return set(dims if isinstance(dims, tuple | list) else [dims]) <= _SPATIAL
        if node.target in ("view", "reshape"):
            return len(node.args) == 3 and _is(node.args[2], -1) and _is_batch_size(node.args[1])
        return node.op == "call_function" and node.target in _APART_FUNCTIONS


class Watching(fx.Interpreter):
    """Runs a graph and keeps what some nodes put out; what runs in place behind them gets a copy."""

    def __init__(self, module: fx.GraphModule, nodes: set[fx.Node]) -> None:
        super().__init__(module)
        self._nodes = nodes
        self.seen: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node not in self._nodes:
            return result
        self.seen[node] = result
        return result.clone()


def _reads_the_shape(node: fx.Node) -> bool:
    return node.target in ("size", "dim") or (node.target is getattr and str(node.args[1]) in ("shape", "ndim"))


def _is_batch_size(argument: object) -> bool:
    if not isinstance(argument, fx.Node):
        return False
    if argument.target == "size":
        return len(argument.args) == 2 and _is(argument.args[1], 0)
    return len(argument.args) == 2 and _is(argument.args[1], 0) and _reads_the_shape(argument.all_input_nodes[0])


def _is(argument: object, number: int) -> bool:
    return isinstance(argument, int) and argument == number


def _what(node: fx.Node, module: nn.Module | None) -> str:
    if node.op == "output":
        return "the output"
    if module is not None:
        return f"{node.target}, a {type(module).__name__}"
    return f"{getattr(node.target, '__name__', node.target)}()"
