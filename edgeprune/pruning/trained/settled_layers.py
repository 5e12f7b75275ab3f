"""Layers whose backward pass makes no gradient for settled neurons. Start with `SettledLayers`.

The work is not done and thrown away: the weight's gradient is computed from the rows of the neurons that still move.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeprune.evaluation import in_evaluation_mode
from edgeprune.pruning.trained.layer_outputs import watched


class PartialConvolution(torch.autograd.Function):
    """A convolution whose weight has a gradient in the rows `moving` alone; the input's gradient is whole."""

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, moving: torch.Tensor, layer: nn.Conv2d
    ) -> torch.Tensor:
        """The layer's output without its bias."""
        context.save_for_backward(x, weight, moving)
        context.layer = layer
        return functional.conv2d(x, weight, None, layer.stride, _padding(layer), layer.dilation)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        """Two calls of the backend's own backward: one for the input, one for some rows of the weight."""
        x, weight, moving = context.saved_tensors
        layer, upstream = context.layer, gradients[0]
        rest = (None, layer.stride, _padding(layer), layer.dilation, False, [0, 0], 1)
        by_input = None
        if context.needs_input_grad[0]:
            by_input = torch.ops.aten.convolution_backward(upstream, x, weight, *rest, [True, False, False])[0]
        by_weight = torch.zeros_like(weight)
        if len(moving):
            some = torch.ops.aten.convolution_backward(
                upstream[:, moving], x, weight[moving], *rest, [False, True, False]
            )[1]
            by_weight[moving] = some
        return by_input, by_weight, None, None


class PartialLinear(torch.autograd.Function):
    """A linear layer whose weight has a gradient in the rows `moving` alone."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """The layer's output without its bias."""
        context.save_for_backward(x, weight, moving)
        return x @ weight.T

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """The input's gradient, and some rows of the weight's."""
        x, weight, moving = context.saved_tensors
        by_weight = torch.zeros_like(weight)
        by_weight[moving] = gradients[0][..., moving].flatten(0, -2).T @ x.flatten(0, -2)
        return gradients[0] @ weight, by_weight, None


class SettledLayers:
    """Some Conv2d and Linear layers of a model, with a forward of their own until the context is left.

    Args:
        model: Its layers are changed in place, and given back as they were.
        names: Plain convolutions and linear layers among them take part; grouped ones do not.
        image: One image, to count the work of each layer.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], image: torch.Tensor) -> None:
        parts = {name: model.get_submodule(name) for name in names}
        self.parts = {name: one for name, one in parts.items() if isinstance(one, nn.Linear) or _is_plain(one)}
        self.names = tuple(self.parts)
        self.settled = {
            name: torch.zeros(one.get_parameter("weight").shape[0], dtype=torch.bool)
            for name, one in self.parts.items()
        }
        self.calls = self._positions(model, image)
        self._held: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def __enter__(self) -> SettledLayers:
        for name, layer in self.parts.items():
            layer.forward = self._forward(name, layer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in self.parts.values():
            del layer.forward

    def settle(self, name: str, settled: torch.Tensor) -> None:
        """From now on the neurons where `settled` is True get no gradient; the others do again."""
        self.settled[name] = settled.cpu()

    def backward_flops(self) -> int:
        """Of one image, two for each multiply-add: the gradients of the inputs, and of the rows that still move."""
        total = 0
        for name, layer in self.parts.items():
            row = layer.get_parameter("weight")[0].numel() * self.calls[name]
            neurons = len(self.settled[name])
            total += 2 * row * (neurons + neurons - int(self.settled[name].sum()))
        return total

    def remember_settled(self) -> None:
        """Keep the weights and biases of settled neurons as they are now."""
        self._held = {
            name: [(one, one.detach()[self.settled[name].to(one.device)].clone()) for one in layer.parameters()]
            for name, layer in self.parts.items()
            if bool(self.settled[name].any())
        }

    @torch.no_grad()
    def restore_settled(self) -> None:
        """Put back what was kept."""
        for name, pairs in self._held.items():
            for parameter, values in pairs:
                parameter[self.settled[name].to(parameter.device)] = values

    def _forward(self, name: str, layer: nn.Module) -> Any:
        def forward(x: torch.Tensor) -> torch.Tensor:
            weight = layer.get_parameter("weight")
            bias = layer.bias if isinstance(layer.bias, torch.Tensor) else None
            moving = (~self.settled[name]).nonzero().flatten().to(weight.device)
            if isinstance(layer, nn.Conv2d):
                made: torch.Tensor = PartialConvolution.apply(x, weight, moving, layer)  # type: ignore[no-untyped-call]
                bias = bias if bias is None else bias.view(-1, 1, 1)
            else:
                made = PartialLinear.apply(x, weight, moving)  # type: ignore[no-untyped-call]
            return made if bias is None else made + bias

        return forward

    def _positions(self, model: nn.Module, image: torch.Tensor) -> dict[str, int]:
        """How often each neuron is computed for one image."""
        found: dict[str, int] = {}

        def count(name: str, output: torch.Tensor) -> None:
            found[name] = found.get(name, 0) + output.numel() // len(self.settled[name])

        with watched(model, self.parts, count), in_evaluation_mode(model), torch.no_grad():
            model(image)
        return found


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or isinstance(module.padding, str):
        return False
    return module.padding_mode == "zeros" and module.groups == 1


def _padding(layer: nn.Conv2d) -> list[int]:
    return [int(one) for one in layer.padding]
