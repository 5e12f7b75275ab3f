"""The papers' own way to shrink: by null gradients, and without the constants of removed filters."""

from __future__ import annotations

import pytest
import torch
from masked_networks import SmallResNet, lenet, mask
from torch import nn

from edgeprune.errors import ShrinkError, UnknownNameError
from edgeprune.shrinking import largest_difference, shrink
from edgeprune.shrinking.shrinker import METHODS
from tests.unit.outside_masks import mask as mask_outside
from tests.unit.outside_masks import silence
from tests.unit.outside_networks import NETWORKS, build

OUTSIDE = ("resnet18", "googlenet", "densenet121", "mobilenet_v2", "squeezenet1_0")


def widths(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("constants", ["exact", "drop"])
@pytest.mark.parametrize("masks", ["A50", "B50", "gammas", "cuts"])
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small"])
def test_both_methods_give_the_same_network(name: str, masks: str, constants: str) -> None:
    example = torch.zeros(1, 3, *NETWORKS[name].size)
    masked = mask_outside(build(name), example, masks)
    one, other = (shrink(masked, example, constants=constants, method=method).model for method in METHODS)
    assert widths(one) == widths(other)


def test_the_gradient_sees_through_attention() -> None:
    example = torch.rand(1, 3, *NETWORKS["vit_tiny_patch16_224"].size, dtype=torch.float64)
    masked = mask_outside(build("vit_tiny_patch16_224"), example.float(), "A50").double()
    one, other = (shrink(masked, example, constants="drop", method=method) for method in METHODS)
    assert widths(one.model) == widths(other.model)
    assert largest_difference(one.model, other.model, (example,))[0] < 1e-10


@pytest.mark.parametrize("name", OUTSIDE)
def test_dropping_constants_is_the_network_whose_filters_left_none(name: str) -> None:
    example = torch.rand(1, 3, *NETWORKS[name].size, dtype=torch.float64)
    masked = mask_outside(build(name), example.float(), "B50").double()
    shrunk = shrink(masked, example, constants="drop")
    difference, _ = largest_difference(masked, shrunk.model, (example,))
    assert 1e-6 < difference <= shrunk.report.difference
    assert any("constants of removed filters were dropped" in note for note in shrunk.report.notes)
    assert largest_difference(silence(masked, example), shrunk.model, (example,))[0] < 1e-10


def test_nothing_is_dropped_where_nothing_was_left() -> None:
    masked, inputs = mask(SmallResNet(1, 8), 0.5, seed=0, beta=False), torch.zeros(1, 3, 16, 16)
    shrunk, exact = shrink(masked, inputs, constants="drop"), shrink(masked, inputs)
    assert shrunk.report.difference < 1e-5
    assert widths(shrunk.model) == widths(exact.model)


def test_activations_of_nothing_are_kept() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3, bias=False))
    with torch.no_grad():
        net[0].weight[:2] = net[0].bias[:2] = 0.0
    assert shrink(net, torch.zeros(1, 1, 8, 8), constants="drop").report.difference < 1e-5


def test_a_network_may_lose_all_its_inputs() -> None:
    masked = mask(lenet(), 0.0, seed=0, beta=True)
    with torch.no_grad():
        masked[3].weight.zero_()
    shrunk = shrink(masked, torch.zeros(1, 1, 28, 28), constants="drop", method="gradient")
    assert shrunk.model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_what_the_gradient_method_does_not_know_is_an_error() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softmax(1))
    with pytest.raises(ShrinkError, match=r"no rule for 1 \(Softmax\)"):
        shrink(net, torch.zeros(1, 1, 4, 4), method="gradient")
    with pytest.raises(UnknownNameError, match="method of shrinking"):
        shrink(net, torch.zeros(1, 1, 4, 4), method="gradients")
