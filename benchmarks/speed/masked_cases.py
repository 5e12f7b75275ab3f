"""Masked networks for the benchmarks of shrinking: random weights, statistics and filter masks. Start with `masked`."""

from __future__ import annotations

import copy

import torch
from shrinking_speed import Network
from torch import Tensor, nn


@torch.no_grad()
def randomised(network: Network, seed: int = 0) -> nn.Module:
    """The network in eval mode with random weights, biases and statistics, as after training."""
    torch.manual_seed(seed)
    model, generator = network.build(), torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            uniform(module.bias, -0.3, 0.3)
    return model


@torch.no_grad()
def masked(dense: nn.Module, ratio: float, case: str, image: Tensor, seed: int = 0) -> nn.Module:
    """A copy with each filter of each convolution zeroed by a coin; in case A zero filters answer zero."""
    model, generator = copy.deepcopy(dense), torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            dead = torch.rand(module.out_channels, generator=generator) < ratio
            module.weight[dead] = 0.0
            if case == "A" and module.bias is not None:
                module.bias[dead] = 0.0
    return silenced(model, image) if case == "A" else model


def silenced(model: nn.Module, image: Tensor) -> nn.Module:
    """The normalisations of channels that hold nothing but zeros answer zero, in place."""

    def settle(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        dead = (inputs[0] == 0).transpose(0, 1).flatten(1).all(1)
        norm.bias[dead] = 0.0
        if norm.running_mean is not None:
            norm.running_mean[dead] = 0.0

    # an activation makes zeros of living channels too, so they are passed by
    activations = [m for m in model.modules() if isinstance(m, nn.ReLU | nn.ReLU6)]
    handles = [m.register_forward_pre_hook(settle) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    handles += [m.register_forward_hook(lambda _module, inputs, _output: inputs[0].clone()) for m in activations]
    in_place = [m.inplace for m in activations]
    for module in activations:
        module.inplace = False
    model(torch.rand_like(image[:, :, :64, :64]))
    for handle in handles:
        handle.remove()
    for module, setting in zip(activations, in_place, strict=True):
        module.inplace = setting
    return model
