"""The regularisers of methods that train, against autograd, finite differences and the papers' updates in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import ModelError, UserError
from edgeprune.pruning import Masks, prune
from edgeprune.pruning.trained.lobster import LossSensitivity
from edgeprune.pruning.trained.serene import NeuronSensitivity, neuron_sensitivity
from edgeprune.pruning.trained.sfp import SoftPruning
from edgeprune.pruning.trained.slimming import SmoothL1OnScales
from edgeprune.pruning.trained.ssl import GroupLasso
from edgeprune.pruning.trained.worsening import largest_threshold, validation_loss
from edgeprune.training import Hooks
from tests.unit.pruned_nets import quadrants, small_net

IMAGE = torch.zeros(1, 1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "shift": 0}


@pytest.mark.parametrize(
    ("hooks", "names"),
    [
        (SmoothL1OnScales(("1", "5"), 0.3, 1.0), ["1.weight", "5.weight"]),
        (SmoothL1OnScales(("1", "5"), 0.3, 0.0), ["1.weight", "5.weight"]),
        (GroupLasso(("0", "4", "9"), 0.2, 0.7), ["0.weight", "4.weight", "9.weight"]),
    ],
    ids=["smooth-l1", "l1", "group-lasso"],
)
def test_the_gradient_of_a_penalty_is_that_of_finite_differences(hooks: Hooks, names: list[str]) -> None:
    model = small_net(1).double()
    penalty = hooks.penalty(model)
    assert penalty is not None
    penalty.backward()
    step = 1e-6
    for name in names:
        value = model.get_parameter(name)
        assert value.grad is not None
        for place in range(0, value.numel(), max(1, value.numel() // 7)):
            flat = value.data.view(-1)
            flat[place] += step
            above = hooks.penalty(model).item()  # type: ignore[union-attr]
            flat[place] -= 2 * step
            below = hooks.penalty(model).item()  # type: ignore[union-attr]
            flat[place] += step
            assert float(value.grad.view(-1)[place]) == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_penalties_by_their_formulas() -> None:
    model = small_net(2)
    model[1].weight.data = torch.tensor([0.5, -0.5, 2.0, -3.0, 0.0, 0.1, 1.0, 1.0])
    scales = np.concatenate([model[name].weight.detach().numpy() for name in (1, 5)])
    small = np.abs(scales) < 1.0
    expected = 0.1 * np.where(small, scales**2 / 2, np.abs(scales) - 0.5).sum()
    assert SmoothL1OnScales(("1", "5"), 0.1, 1.0).penalty(model).item() == pytest.approx(expected, rel=1e-5)
    weight = model[4].weight.detach().numpy()
    lasso = 2 * np.sqrt((weight**2).sum((1, 2, 3))).sum() + 3 * np.sqrt((weight**2).sum((0, 2, 3))).sum()
    assert GroupLasso(("4",), 2.0, 3.0).penalty(model).item() == pytest.approx(lasso, rel=1e-5)


def test_a_group_that_is_zero_has_no_gradient_and_no_nan() -> None:
    model = small_net()
    model[4].weight.data[3] = 0.0
    GroupLasso(("4",), 1.0, 0.0).penalty(model).backward()
    assert torch.equal(model[4].weight.grad[3], torch.zeros(8, 3, 3))
    assert bool(torch.isfinite(model[4].weight.grad).all())


def test_soft_pruning_zeroes_the_smallest_and_lets_them_come_back() -> None:
    model = small_net()
    hooks = SoftPruning(("0",), 0.5, 2.0, "local")
    hooks.after_epoch(model, quadrants(), 1)
    first = hooks.gone["0"]
    norms = np.sqrt((small_net()[0].weight.detach().numpy() ** 2).sum((1, 2, 3)))
    assert set(first.nonzero().flatten().tolist()) == set(np.argsort(norms)[:4].tolist())
    assert not model[0].weight[first].any()
    with torch.no_grad():
        model[0].weight[first.nonzero()[0, 0]] = 9.0
    hooks.after_epoch(model, quadrants(), 2)
    assert not hooks.gone["0"][first.nonzero()[0, 0]]
    assert int((hooks.ever["0"] & ~hooks.gone["0"]).sum()) == 1


def test_lobster_s_update_and_its_lasting_cut() -> None:
    model = small_net()
    hooks = LossSensitivity(("4", "9"), 0.01, 0.1, 0.5)
    images, labels = next(iter(zip(*[one.split(30) for one in quadrants().train.tensors], strict=True)))  # type: ignore[attr-defined]
    (40 * functional.cross_entropy(model(images), labels)).backward()
    before = {name: model.get_parameter(f"{name}.weight").detach().numpy().copy() for name in ("4", "9")}
    hooks.kept = {"9": torch.ones(12, 32, dtype=torch.bool).tril()}
    hooks.before_step(model, 0.1)
    hooks.after_step(model, 0.1)
    for name, weight in before.items():
        gradient = np.abs(model.get_parameter(f"{name}.weight").grad.numpy())
        expected = weight - 0.01 * weight * np.maximum(1.0 - gradient, 0.0)
        expected = expected * (hooks.kept[name].numpy() if name in hooks.kept else 1.0)
        assert np.allclose(model.get_parameter(f"{name}.weight").detach().numpy(), expected, atol=1e-7)
        assert (gradient > 1.0).any() or name == "9"


def test_equation_2_by_one_backward_pass_an_output() -> None:
    """The sensitivity against finite differences: p of one filter moved at one position of one image."""
    model = small_net(3).double().eval()
    images = quadrants().train.tensors[0][:3].double()  # type: ignore[attr-defined]
    found = neuron_sensitivity(model, ["4", "9"], images)
    step = 1e-6
    for name, cut in (("4", 5), ("9", 10)):
        with torch.no_grad():
            potential = model[:cut](images)
            expected = np.zeros(potential.shape[1])
            for image in range(3):
                for neuron in range(potential.shape[1]):
                    positions = list(np.ndindex(*potential.shape[2:]))
                    for position in positions:
                        moved = potential[image : image + 1].clone()
                        moved[(0, neuron, *position)] += step
                        above = model[cut:](moved)
                        moved[(0, neuron, *position)] -= 2 * step
                        change = (above - model[cut:](moved)).abs().mean() / (2 * step)
                        expected[neuron] += float(change) / (3 * len(positions))
        assert np.allclose(found[name].numpy(), expected, atol=1e-6)


def test_a_layer_that_no_output_hears_has_no_sensitivity() -> None:
    class Unheard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heard, self.unheard = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 2, 3)
            self.head = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.unheard(x)
            result: torch.Tensor = self.head(self.heard(x).mean((2, 3)))
            return result

    found = neuron_sensitivity(Unheard(), ["heard", "unheard"], torch.randn(2, 1, 8, 8))
    assert bool((found["heard"] > 0).all())
    assert found["unheard"].tolist() == [0.0, 0.0]


def test_serene_shrinks_by_sensitivity_and_cuts_as_far_as_validation_lets_it() -> None:
    model, data = small_net(), quadrants()
    images = data.train.tensors[0][:8]  # type: ignore[attr-defined]
    hooks = NeuronSensitivity(("4",), 0.01, 0.1, 0.5, images)
    sensitivity = neuron_sensitivity(model, ["4"], images)["4"].numpy()
    before = model[4].weight.detach().numpy().copy()
    hooks.after_step(model, 0.1)
    expected = before * (1 - 0.01 * np.maximum(1 - sensitivity, 0.0))[:, None, None, None]
    assert np.allclose(model[4].weight.detach().numpy(), expected, atol=1e-6)
    planted = [1, 6]
    with torch.no_grad():
        model[4].weight[planted] = 0.0
        model[4].bias[planted] = 0.0
    limit = 1.1 * validation_loss(model, data)
    hooks.after_epoch(model, data, 1)
    assert not hooks.kept["4"][planted].any()
    assert int((~hooks.kept["4"]).sum()) <= 4
    assert validation_loss(model, data) <= limit * (1 + 1e-6)


def test_the_search_stops_at_the_limit() -> None:
    assert largest_threshold(lambda threshold: 0.0, 3.0, 1.0) == 3.0
    assert largest_threshold(lambda threshold: 2.0, 3.0, 1.0) == 0.0
    assert largest_threshold(lambda threshold: threshold, 3.0, 1.0) == pytest.approx(1.0, abs=3.0 / 2**9)


def test_slimming_without_batchnorm_names_a_layer_and_the_way_out() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    with pytest.raises(ModelError, match="layer 0 has no batch-norm") as told:
        prune(plain, IMAGE, "slimming", 0.5, data=quadrants(), **QUICK)
    assert "such as l1" in str(told.value.hint)


def test_slimming_goes_by_one_threshold_for_all_scales() -> None:
    masks = prune(small_net(), IMAGE, "slimming", 0.5, data=quadrants(), rounds=1, retrain_epochs=1, **QUICK)
    assert set(masks) == {"0", "1", "4", "5"}
    assert masks.pruned_filters == 8
    kept = [masks.replaced[f"{name}.weight"][masks[name]].abs() for name in ("1", "5")]
    assert not any(masks.replaced[f"{name}.weight"][~masks[name]].any() for name in ("0", "1", "4", "5"))
    assert all(bool((one > 0).all()) for one in kept)


def test_what_lobster_and_serene_cut_by_themselves_is_told() -> None:
    for method in ("lobster", "serene"):
        alone = prune(small_net(), IMAGE, method, 0.5, data=quadrants(), fill=False, tolerance=0.5, **QUICK)
        kept = [mask for name, mask in alone.items() if name not in alone.batchnorms]
        gone = sum(int((~one).sum()) for one in kept) / sum(one.numel() for one in kept)
        assert gone == pytest.approx(alone.facts["cut_by_itself"])
        assert 0.0 <= gone <= 0.5
        filled = prune(small_net(), IMAGE, method, 0.5, data=quadrants(), tolerance=0.5, **QUICK)
        kept = [mask for name, mask in filled.items() if name not in filled.batchnorms]
        assert sum(int((~one).sum()) for one in kept) / sum(one.numel() for one in kept) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("rewind", "epochs"), [(-1, 2), (0, 2), (1, 2)])
def test_iterative_rewinds_to_the_epoch_asked_for(rewind: int, epochs: int) -> None:
    masks = prune(
        small_net(), IMAGE, "iterative", 0.5, data=quadrants(), rounds=2, rewind=rewind, criterion="l2", **QUICK
    )
    assert masks.pruned_filters == 4 + 4 + 6
    assert isinstance(masks, Masks)
    with pytest.raises(UserError, match="rewind 2"):
        prune(small_net(), IMAGE, "iterative", 0.5, data=quadrants(), rewind=2, **QUICK)


def test_soft_pruned_filters_learn_no_faster_than_the_others() -> None:
    """Behind a filter of zeros a batch-norm divides by the root of its epsilon: its gradient is hundreds of times."""
    model = small_net()
    with torch.no_grad():
        # else the activation behind a channel of zeros lets nothing through
        model[1].bias.fill_(0.5)
        model[5].bias.fill_(0.5)
    hooks = SoftPruning(("0", "4"), 0.5, 2.0, "local")
    hooks.after_epoch(model, quadrants(), 1)
    images, labels = quadrants().train.tensors  # type: ignore[attr-defined]
    functional.cross_entropy(model.train()(images), labels).backward()
    raw = {name: model.get_submodule(name).weight.grad.clone() for name in ("0", "4")}
    hooks.before_step(model, 0.1)
    for name, gone in hooks.gone.items():
        sizes, limited = (one.flatten(1).norm(dim=1) for one in (raw[name], model.get_submodule(name).weight.grad))
        assert torch.equal(limited[~gone], sizes[~gone])
        assert bool((limited[gone] <= sizes[~gone].mean() * (1 + 1e-5)).all())
        assert torch.allclose(limited[gone], torch.minimum(sizes[gone], sizes[~gone].mean()), rtol=1e-4)
    sizes = raw["0"].flatten(1).norm(dim=1)
    assert sizes[hooks.gone["0"]].min() > 10 * sizes[~hooks.gone["0"]].mean()
