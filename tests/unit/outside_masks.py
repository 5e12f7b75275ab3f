"""Ways to mask a network of any shape, for the tests of shrinking: start with `MASKS`, and `mask` to apply one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import edgeprune.pruning

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def mask(model: nn.Module, example: Tensor, name: str, seed: int = 0) -> nn.Module:
    """Random weights and statistics, then the masks of `MASKS[name]`; works in place except for the criteria."""
    generator = torch.Generator().manual_seed(seed)
    randomise(model, generator)
    return MASKS[name](model, example, generator)


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Random weights of about unit gain, and random statistics; works in place."""
    for module in model.modules():
        if isinstance(module, LAYERS):
            fan_in = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
        elif isinstance(module, NORMS):
            module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        if isinstance(module, LAYERS + NORMS) and module.bias is not None:
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)


def _filters(model: nn.Module, example: Tensor, generator: torch.Generator, *, ratio: float, beta: bool) -> nn.Module:
    for layer, dead in _draw(model, generator, ratio):
        layer.weight[dead] = 0.0
    return model if beta else silence(model, example)


@torch.no_grad()
def silence(model: nn.Module, example: Tensor) -> nn.Module:
    """Biases of zero filters become zero, and normalisations answer channels of nothing but zeros with zeros."""

    def settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        dead = (x == 0).transpose(0, 1).flatten(1).all(1)
        norm.bias[dead] = norm.running_mean[dead] = 0.0  # type: ignore[index,operator]

    handles, activations = [], []
    for module in model.modules():
        if isinstance(module, LAYERS) and module.bias is not None:
            module.bias[(module.weight == 0).flatten(1).all(1)] = 0.0
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(settle))
        elif isinstance(module, nn.ReLU | nn.ReLU6):  # they make zeros by chance
            module.forward = lambda x: x  # type: ignore[method-assign]
            activations.append(module)
    model(torch.rand_like(example))
    for handle in handles:
        handle.remove()
    for module in activations:
        del module.forward
    return model


def _gammas(model: nn.Module, example: Tensor, generator: torch.Generator, *, ratio: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight[torch.rand(module.num_features, generator=generator) < ratio] = 0.0
    return model


def _cuts(model: nn.Module, example: Tensor, generator: torch.Generator, *, ratio: float, part: float) -> nn.Module:
    _filters(model, example, generator, ratio=ratio, beta=True)
    for layer, _ in _draw(model, generator, 0.0):
        if torch.rand((), generator=generator) < part:
            layer.weight.zero_()
    return model


def _inputs(model: nn.Module, example: Tensor, generator: torch.Generator, *, ratio: float) -> nn.Module:
    for layer, _ in _draw(model, generator, 0.0):
        layer.weight[:, torch.rand(layer.weight.shape[1], generator=generator) < ratio] = 0.0
    return model


def _columns(model: nn.Module, example: Tensor, generator: torch.Generator, *, ratio: float) -> nn.Module:
    """The columns of parameterized structured pruning: one place (in, kh, kw) of the kernels, in all filters."""
    for layer, _ in _draw(model, generator, 0.0):
        layer.weight[:, torch.rand(layer.weight.shape[1:], generator=generator) < ratio] = 0.0
    return model


def _criterion(model: nn.Module, example: Tensor, generator: torch.Generator, **options: Any) -> nn.Module:
    return edgeprune.pruning.prune(model, example, **options).apply(model)


def _draw(model: nn.Module, generator: torch.Generator, ratio: float) -> list[tuple[Any, Tensor]]:
    """Each layer but the last, with a random part of its filters."""
    layers = [m for m in model.modules() if isinstance(m, LAYERS)][:-1]
    return [(layer, torch.rand(layer.weight.shape[0], generator=generator) < ratio) for layer in layers]


MASKS: dict[str, Callable[[nn.Module, Tensor, torch.Generator], nn.Module]] = {
    **{f"A{ratio}": partial(torch.no_grad()(_filters), ratio=ratio / 100, beta=False) for ratio in (30, 50, 70)},
    **{f"B{ratio}": partial(torch.no_grad()(_filters), ratio=ratio / 100, beta=True) for ratio in (30, 50, 70)},
    "gammas": partial(torch.no_grad()(_gammas), ratio=0.4),
    "cuts": partial(torch.no_grad()(_cuts), ratio=0.3, part=0.03),
    "inputs": partial(torch.no_grad()(_inputs), ratio=0.4),
    "columns": partial(torch.no_grad()(_columns), ratio=0.6),
    "l1": partial(_criterion, method="l1", ratio=0.5),
    "random": partial(_criterion, method="random", ratio=0.5, batchnorm="keep"),
}
"""A: pruned filters give zero behind their normalisation too. B: their biases and shifts stay (as in all below)."""
