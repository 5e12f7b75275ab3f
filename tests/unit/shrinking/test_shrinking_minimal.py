"""The shrunk network is as small as two-way connectivity allows, by the paper's own method as an oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from masked_networks import SmallResNet, lenet, mask
from torch import nn

from edgeprune.shrinking import shrink


def connected_params(masked: nn.Module, inputs: torch.Tensor) -> int:
    """Parameters that two-way connectivity leaves, by algorithm 1 of effects_of_structured_pruning_2022.

    On a copy that is linear and positive (masks for weights, no biases, no normalisation; ReLU and max of positive
    numbers change nothing), a weight is connected when its gradient is not null. A layer then costs its connected
    outputs times its connected inputs, and each normalisation two numbers for each of the outputs it normalises.
    """
    twin = copy.deepcopy(masked).double()
    layers = [m for m in twin.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norms: dict[int, int] = {}
    last = 0
    for module in twin.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d | nn.Linear):
                last = id(child)
            elif isinstance(child, nn.BatchNorm2d):
                norms[last] = 2
                setattr(module, name, nn.Identity())
    has_bias = {id(layer): layer.bias is not None for layer in layers}
    for layer in layers:
        alive = (layer.weight != 0).double()
        layer.weight = nn.Parameter(alive / layer.weight[0].numel())
        layer.bias = None
    twin(torch.ones_like(inputs, dtype=torch.float64)).sum().backward()
    total = 0
    for layer in layers:
        grad = layer.weight.grad if layer.weight.grad is not None else torch.zeros_like(layer.weight)
        reached = (grad != 0) & (layer.weight != 0)
        flat = reached.flatten(2).any(2) if reached.dim() > 2 else reached
        # every class stays, connected or not
        outputs = len(flat) if layer is layers[-1] else int(flat.any(1).sum())
        taps = layer.weight[0, 0].numel()
        total += outputs * int(flat.any(0).sum()) * taps + outputs * (has_bias[id(layer)] + norms.get(id(layer), 0))
    return total


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("depth", [3, 9], ids=["resnet20", "resnet56"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7])
def test_residual_networks_are_minimal(shortcut: str, depth: int, ratio: float) -> None:
    masked = mask(SmallResNet(depth, 16, shortcut), ratio, seed=depth, beta=False)
    inputs = torch.zeros(1, 3, 16, 16)
    report = shrink(masked, inputs).report
    assert report.params_after == connected_params(masked, inputs)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7])
def test_lenet_is_minimal_with_constants_too(ratio: float) -> None:
    inputs = torch.zeros(1, 1, 28, 28)
    for beta in (False, True):  # no zero border, so constants cost nothing
        masked = mask(lenet(), ratio, seed=1, beta=beta)
        assert shrink(masked, inputs).report.params_after == connected_params(masked, inputs)


def test_a_carrier_costs_at_most_one_channel_a_zero_bordered_layer() -> None:
    with_zeros = mask(SmallResNet(9, 16), 0.5, seed=0, beta=False)
    with_constants = mask(SmallResNet(9, 16), 0.5, seed=0, beta=True)
    inputs = torch.zeros(1, 3, 16, 16)
    small, large = shrink(with_zeros, inputs).model, shrink(with_constants, inputs).model
    for name, layer in large.named_modules():
        if isinstance(layer, nn.Conv2d):
            least = small.get_submodule(name)
            assert layer.in_channels <= least.in_channels + 1
            assert layer.out_channels <= least.out_channels + 1


def test_dead_gammas_remove_the_filters_before_them() -> None:
    masked = mask(SmallResNet(1, 8), 0.0, seed=0, beta=True)
    with torch.no_grad():
        masked.blocks[0].bn1.weight[:5] = 0.0
        masked.blocks[0].bn1.bias[:5] = 0.0
    shrunk = shrink(masked, torch.zeros(1, 3, 16, 16)).model
    assert shrunk.get_submodule("blocks.0.conv1").out_channels == 3
    assert shrunk.get_submodule("blocks.0.conv2").in_channels == 3
