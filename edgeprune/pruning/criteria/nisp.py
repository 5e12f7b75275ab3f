"""Importance that is propagated from the network's end to all filters before it (Yu et al. 2018, NISP, section 3.4).

Every output counts 1 (learned_pruning_models_thesis, section 2.2.3); a neuron is as important as the neurons that read
it, times the absolute weights they read it with (equation 10 of the paper), since an activation of slope at most 1
passes a change on at most as it is (section 3.3). That is the gradient of a network made positive: absolute weights, no
biases, no activations, and pooling that adds up all of its window, any of which may be the largest.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError
from edgeprune.pruning.criteria.context import Network
from edgeprune.pruning.flow import ACTIVATION_FUNCTIONS, ACTIVATION_METHODS, ACTIVATIONS, Flows, Watching

_LINEAR = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Upsample,
           nn.ZeroPad2d)  # fmt: skip
_LINEAR_FUNCTIONS = {operator.add, operator.iadd, operator.getitem, getattr, torch.add, torch.cat, torch.stack,
                     torch.flatten, torch.mean, torch.sum, functional.pad, functional.dropout, functional.avg_pool2d,
                     functional.adaptive_avg_pool2d, functional.interpolate}  # fmt: skip
_LINEAR_METHODS = set(
    "add add_ chunk contiguous flatten mean dim permute reshape size split squeeze sum transpose unsqueeze view".split()
)


def scores(network: Network) -> dict[str, torch.Tensor]:
    """Importance of each filter, summed over the places of its map: float64 [C_out] of each layer.

    Raises:
        ModelError: the network runs an operation whose weights are not known.
    """
    positive = copy.deepcopy(network.model).double().requires_grad_(True)
    for layer in positive.modules():
        _make_positive(layer)
    flows = Flows(positive, network.sites)
    calls = [(site.layer, node) for site in network.sites for node in flows.calls(site.layer)]
    propagation = _Propagation(flows.module, {node for _, node in calls})
    output = propagation.run(*(torch.ones_like(one, dtype=torch.float64) for one in network.inputs))
    seen = [propagation.seen[node] for _, node in calls]
    total = torch.stack([one.sum() for one in _tensors(output)]).sum()
    gradients = torch.autograd.grad(total, seen, allow_unused=True, materialize_grads=True)
    found = {site.layer: torch.zeros((), dtype=torch.float64) for site in network.sites}
    for (name, _), gradient in zip(calls, gradients, strict=True):
        found[name] = found[name] + (gradient.sum((0, 2, 3)) if gradient.dim() == 4 else gradient.flatten(0, -2).sum(0))
    return found


def _make_positive(layer: nn.Module) -> None:
    """Absolute weights and no biases; a batch-norm becomes its absolute scale."""
    with torch.no_grad():
        if isinstance(layer, _ConvNd | nn.Linear | _BatchNorm) and layer.weight is not None:
            layer.weight.abs_()
            if layer.bias is not None:
                layer.bias.zero_()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.running_mean.zero_()


class _Propagation(Watching):
    """Runs the positive network: without activations, and with pooling that adds up."""

    def run_node(self, node: fx.Node) -> Any:
        if node.op.startswith("call") and not self._is_known(node):
            module = f", a {type(self.fetch_attr(str(node.target))).__name__}" if node.op == "call_module" else ""
            raise ModelError(
                f"method nisp does not know how importance goes back through {node.name}{module}",
                hint="take a method that looks at data, such as taylor or hrank, or one of weights alone, such as l1",
            )
        return super().run_node(node)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, ACTIVATIONS):
            return args[0]
        if isinstance(module, nn.MaxPool2d):
            return _add_up(args[0], module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)
        return super().call_module(target, args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in ACTIVATION_FUNCTIONS:
            return args[0]
        if target is functional.max_pool2d:
            given = {name: one for name, one in kwargs.items() if name in ("stride", "padding", "ceil_mode")}
            return _add_up(args[0], *(args[1:] or [kwargs["kernel_size"]]), **given)
        return super().call_function(target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return args[0] if target in ACTIVATION_METHODS else super().call_method(target, args, kwargs)

    def _is_known(self, node: fx.Node) -> bool:
        if node.op == "call_function":
            return node.target in (*ACTIVATION_FUNCTIONS, *_LINEAR_FUNCTIONS) or not self._takes_tensors(node)
        if node.op == "call_method":
            return node.target in (*ACTIVATION_METHODS, *_LINEAR_METHODS)
        module = self.fetch_attr(str(node.target))
        if isinstance(module, _BatchNorm):
            return module.running_var is not None
        return isinstance(module, (_ConvNd, nn.Linear, nn.MaxPool2d, *ACTIVATIONS, *_LINEAR))

    def _takes_tensors(self, node: fx.Node) -> bool:
        return any(isinstance(self.env.get(one), torch.Tensor) for one in node.all_input_nodes)


def _add_up(
    value: torch.Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> torch.Tensor:
    return functional.avg_pool2d(value, kernel_size, stride, padding, ceil_mode, divisor_override=1)


def _tensors(output: object) -> Iterator[torch.Tensor]:
    """All tensors of a model's output, however they are packed."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for one in output:
            yield from _tensors(one)
