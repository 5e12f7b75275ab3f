"""PSP against its equations in numpy, step by step; thresholds that let structures come back; its structures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeprune.errors import ModelError, UnknownNameError
from edgeprune.pruning import prune
from edgeprune.pruning.trained.psp import StructureParameters, StructureTraining, Threshold
from edgeprune.pruning.trained.rescaling import rescale
from edgeprune.pruning.trained.structures import AXES, bypassed, parameter_shape
from tests.unit.pruned_nets import quadrants, residual_net, small_net

IMAGE = torch.zeros(1, 1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "shift": 0}
SUMMED = {"column": (0,), "channel": (0, 2, 3), "shape": (0, 1), "filter": (1, 2, 3), "layer": (0, 1, 2, 3)}


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("structure", list(AXES))
def test_equations_2_to_6_step_by_step(structure: str, printed: bool) -> None:
    """Five steps of one convolution under a loss whose gradient by q is known, against numpy."""
    random = torch.Generator().manual_seed(5)
    rate, momentum, decay, epsilon = 0.1, 0.9, 0.01, 0.08
    layer = nn.Conv2d(3, 4, 2).double()
    layer.weight.data = torch.randn(layer.weight.shape, generator=random, dtype=torch.float64)
    target = torch.randn(layer.weight.shape, generator=random, dtype=torch.float64)
    parametrize.register_parametrization(
        layer, "weight", StructureParameters(layer.weight, [structure], "gaussian", printed, random)
    )
    model = nn.Sequential(layer)
    hooks = StructureTraining(("0",), frozenset({"0"}), 0.0, epsilon, "decay", decay)
    hooks.after_step(model, rate)
    groups = hooks.parameter_groups(model)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True)
    alpha = groups[0]["params"][0].detach().numpy().copy()
    weight = layer.parametrizations.weight.original.detach().numpy()
    change = np.zeros_like(alpha)
    for _ in range(5):
        nu = np.where(np.abs(alpha) < epsilon, 0.0, alpha)  # equation 3
        q = weight * nu  # equation 2
        assert np.allclose(layer.weight.detach().numpy(), q, atol=1e-12)
        optimizer.zero_grad()
        (0.5 * (layer.weight - target).square().sum()).backward()
        optimizer.step()
        by_q = q - target.numpy()
        # equation 5 and table 1 as printed, or with the factor w of the chain rule; equation 4 lets it pass
        gradient = (by_q if printed else by_q * weight).sum(SUMMED[structure], keepdims=True)
        change = momentum * change - rate * gradient - decay * rate * alpha  # equation 6
        alpha = alpha + change
        assert np.allclose(groups[0]["params"][0].detach().numpy(), alpha, atol=1e-12)


def test_the_threshold_passes_the_gradient_straight_through() -> None:
    alpha = torch.tensor([-0.3, -0.1, 0.0, 0.1, 0.3], requires_grad=True)
    nu = Threshold.apply(alpha, torch.tensor(0.2))
    assert nu.tolist() == pytest.approx([-0.3, 0.0, 0.0, 0.0, 0.3])
    (nu * torch.arange(5.0)).sum().backward()
    assert alpha.grad is not None
    assert alpha.grad.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_l1_adds_the_sign_of_alpha() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2))
    numbers = StructureParameters(model[0].weight, ["channel"], "gaussian", False, torch.Generator().manual_seed(1))
    parametrize.register_parametrization(model[0], "weight", numbers)
    hooks = StructureTraining(("0",), frozenset(), 0.5, None, "l1", 0.25)
    assert hooks.parameter_groups(model)[0]["weight_decay"] == 0.0
    penalty = hooks.penalty(model)
    assert penalty is not None
    penalty.backward()
    alpha = numbers.alphas[0]
    assert alpha.grad is not None
    assert torch.allclose(alpha.grad, 0.25 * alpha.detach().sign())


def test_a_structure_comes_back_when_its_number_leaves_the_interval() -> None:
    """A pruned channel that the loss wants is pulled out of the interval by its straight-through gradient."""
    layer = nn.Conv2d(2, 1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    numbers = StructureParameters(layer.weight, ["channel"], "ones", False, torch.Generator())
    numbers.alphas[0].data = torch.tensor([1.0, 0.05]).view(1, 2, 1, 1)
    parametrize.register_parametrization(layer, "weight", numbers)
    model = nn.Sequential(layer)
    hooks = StructureTraining(("0",), frozenset(), 0.0, 0.2, "decay", 0.0)
    hooks.after_step(model, 0.1)
    assert layer.weight.flatten().tolist() == [1.0, 0.0]
    optimizer = torch.optim.SGD(hooks.parameter_groups(model), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (layer.weight - 1.0).square().sum().backward()
        optimizer.step()
        hooks.after_step(model, 0.1)
    assert layer.weight.flatten()[1] > 0.2


@pytest.mark.parametrize("structure", [*AXES, "layer+channel"])
@pytest.mark.parametrize("regulariser", ["decay", "none"])
def test_masks_are_whole_structures_at_the_ratio(structure: str, regulariser: str) -> None:
    data = quadrants()
    masks = prune(residual_net(), IMAGE, "psp", 0.5, data=data, structure=structure, regulariser=regulariser, **QUICK)
    for count in masks.facts["structures"]:
        if regulariser == "decay" or structure == "layer":
            assert count["pruned"] == count["all"] // 2
        else:
            assert 0 < count["pruned"] <= count["all"] / 2
    assert set(masks) == ({"first", "second", "third", "fourth"})
    if "+" not in structure:
        for mask in masks.values():
            # constant along every axis that the structure's parameter does not have
            shape = parameter_shape(structure, mask.shape)
            narrow = mask[tuple(slice(size) for size in shape)]
            assert torch.equal(narrow.expand_as(mask), mask)
    masked = masks.apply(residual_net())
    for name, mask in masks.items():
        assert torch.equal(masked.get_submodule(name).weight != 0, mask)


def test_an_epsilon_decides_itself_and_the_only_way_through_is_kept() -> None:
    """With a threshold that no parameter reaches, a layer that nothing leads past keeps one structure."""
    masks = prune(small_net(), IMAGE, "psp", 0.0, data=quadrants(), structure="channel", threshold=50.0, **QUICK)
    assert masks.facts["structures"] == [{"structure": "channel", "all": 8, "pruned": 7}]
    gone = prune(residual_net(), IMAGE, "psp", 0.0, data=quadrants(), structure="layer", threshold=50.0, **QUICK)
    assert not any(bool(mask.any()) for mask in gone.values())


def test_layers_beside_a_sum_are_bypassed_and_others_not() -> None:
    assert bypassed(residual_net(), ["stem", "first", "fourth", "head"]) == ["first", "fourth"]
    assert bypassed(small_net(), ["0", "4"]) == []


def test_mistakes() -> None:
    with pytest.raises(ModelError, match="every layer is the only way"):
        prune(small_net(), IMAGE, "psp", 0.5, data=quadrants(), structure="layer")
    with pytest.raises(UnknownNameError, match="structure 'row'"):
        prune(small_net(), IMAGE, "psp", 0.5, data=quadrants(), structure="row")
    with pytest.raises(UnknownNameError, match="regulariser of method psp"):
        prune(small_net(), IMAGE, "psp", 0.5, data=quadrants(), regulariser="l3")
    lone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    with pytest.raises(ModelError, match="no convolution between"):
        prune(lone, IMAGE, "psp", 0.5, data=quadrants())


def test_weights_before_a_batchnorm_are_as_large_as_they_were_trained_and_give_the_same() -> None:
    torch.manual_seed(3)
    layer, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    norm.weight.data, norm.running_var = torch.rand(4) + 0.5, torch.rand(4) * 1e-4  # where epsilon counts
    norm.running_mean = torch.randn(4)
    model = nn.Sequential(layer, norm).eval()
    images, size = torch.randn(2, 3, 6, 6), layer.weight.norm()
    with torch.no_grad():
        before = model(images)
        rescale(layer, norm, 10.0)
        torch.testing.assert_close(model(images), before)
    torch.testing.assert_close(layer.weight.norm(), 10.0 * size)


def test_folded_weights_are_not_small() -> None:
    """Structure parameters begin at a tenth; fine-tuning would turn weights of that size about."""
    masks = prune(small_net(), IMAGE, "psp", 0.5, data=quadrants(), structure="column", **QUICK)
    layer = next(name for name in masks)
    folded = masks.apply(small_net()).get_submodule(layer).weight
    assert folded.norm() > 0.5 * (small_net().get_submodule(layer).weight * masks[layer]).norm()
