"""Gates (SSS, SPP), learned masks and settled neurons (NEq) against their equations in numpy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import ModelError, UserError
from edgeprune.pruning import prune
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.gates import add_gates, fold_gates
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.learned import LearnedMasks, PruningModel, _folded, continuous_mask, shared_mask
from edgeprune.pruning.trained.neq import unit_outputs, velocity
from edgeprune.pruning.trained.settled_layers import SettledLayers
from edgeprune.pruning.trained.spp import increments
from edgeprune.pruning.trained.sss import ProximalGates
from edgeprune.pruning.trained.streams import reader_groups
from edgeprune.training import FROM_SCRATCH
from tests.unit.pruned_nets import quadrants, residual_net, small_net

IMAGE = torch.zeros(1, 1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "shift": 0}


def test_gates_scale_what_comes_out_and_fold_away() -> None:
    model, plain = small_net().eval(), small_net().eval()
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    sites = find_sites(model)
    gates = add_gates(model, sites)
    assert torch.equal(model(images), plain(images))
    with torch.no_grad():
        gates["4"][2] = 0.25
        gates["9"][5] = 0.0
    with torch.no_grad():
        hidden = plain[:6](images)
        hidden[:, 2] *= 0.25
        hidden = plain[6:10](hidden)
        hidden[:, 5] = 0.0
        expected = plain[10:](hidden)
    assert torch.allclose(model(images), expected, atol=1e-6)
    fold_gates(model, sites)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.allclose(model(images), expected, atol=1e-6)


def test_sss_s_proximal_steps_close_a_gate_for_good() -> None:
    """Equations 9 to 11 written out in numpy, over steps with known gradients."""
    gate = nn.Parameter(torch.tensor([1.0, 0.05, -0.3, 0.02], dtype=torch.float64))
    hooks = ProximalGates(0.5, 0.9, 1.0, {"a": gate})
    value, speed = gate.detach().numpy().copy(), np.zeros(4)
    random = np.random.default_rng(2)
    for _ in range(6):
        gradient = random.normal(size=4) * np.array([1.0, 0.1, 1.0, 0.0])
        gate.grad = torch.from_numpy(gradient.copy())
        hooks.before_step(nn.Identity(), 0.1)
        assert gate.grad is None
        z = value - 0.1 * gradient
        shrunk = np.sign(z) * np.maximum(np.abs(z) - 0.1 * 0.5, 0.0)
        speed = shrunk - value + 0.9 * speed
        value = shrunk + 0.9 * speed
        assert np.allclose(gate.detach().numpy(), value, atol=1e-12)
    assert gate[3] == 0.0
    assert gate[0] != 0.0


def test_sss_s_gates_are_not_pressed_further_once_enough_are_closed() -> None:
    gate = nn.Parameter(torch.tensor([1.0, 0.0]))
    for enough, expected in ((0.5, 1.0), (0.6, 0.99)):
        gate.data = torch.tensor([1.0, 0.0])
        gate.grad = torch.zeros(2)
        ProximalGates(0.1, 0.0, enough, {"a": gate}).before_step(nn.Identity(), 0.1)
        assert gate.detach().tolist() == pytest.approx([expected, 0.0])


def test_sss_without_filling_removes_what_it_closed() -> None:
    masks = prune(small_net(), IMAGE, "sss", 0.5, data=quadrants(), strength=4.0, fill=False, **(QUICK | {"epochs": 6}))
    assert masks.facts["closed_gates"] > 0
    # a layer that closed altogether keeps one filter
    alone = sum(int(mask.sum()) == 1 for name, mask in masks.items() if name not in masks.batchnorms)
    assert masks.facts["closed_gates"] - alone <= masks.pruned_filters <= masks.facts["closed_gates"]
    assert all(bool(mask.any()) for mask in masks.values())


def test_spp_s_increments_fall_and_cross_zero_at_the_rank_that_is_wanted() -> None:
    found = increments(20, 8.0, 0.05, 0.25).numpy()
    slope = (np.log(2) - np.log(0.25)) / 8
    centre = -np.log(0.25) / slope
    assert found[0] == pytest.approx(0.05)
    assert found[8] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(found) < 0).all()
    assert (found[9:] < 0).all()
    for rank in range(20):
        below, mirrored = 0.05 * np.exp(-slope * rank), 0.05 * np.exp(-slope * (2 * centre - rank))
        assert found[rank] == pytest.approx(below if rank <= centre else 0.025 - mirrored)


def test_spp_settles_the_filters_of_smallest_norm() -> None:
    model = small_net()
    with torch.no_grad():
        model[4].weight[[1, 2, 5, 6]] *= 1e-3
    masks = prune(model, IMAGE, "spp", 0.5, data=quadrants(), largest=0.5, peak_rate=1e-4, **QUICK)
    assert masks.facts["settled_filters"] > 0
    assert (~masks["4"]).nonzero().flatten().tolist() == [1, 2, 5, 6]


def test_equation_4_3_in_numpy() -> None:
    random = np.random.default_rng(0)
    y, previous = random.normal(size=(6, 5)), random.random(5)
    expected = previous / 2 + (y.mean(0) - y.mean()) / (2 * np.sqrt(y.var())) + 1.15 - (30 + 12) / 60
    found = continuous_mask(torch.from_numpy(previous), torch.from_numpy(y), (30 + 12) / 60)
    assert np.allclose(found.numpy(), np.maximum(expected, 0.0))
    masks = random.random((3, 5))
    together = shared_mask([torch.from_numpy(one) for one in masks])
    assert np.allclose(together.numpy(), np.maximum(masks.mean(0) - 0.7 * masks.mean(), 0.0))


@pytest.mark.parametrize("size", [4, 8, 31])
def test_a_pruning_model_takes_any_size(size: int) -> None:
    assert PruningModel(3)(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_readers_of_one_stream_share_and_others_do_not() -> None:
    groups = {group.readers: group for group in reader_groups(residual_net())}
    assert set(groups) == {("first", "third"), ("second",), ("fourth",)}
    # the classifier reads the stream too, past its mean over space
    assert not groups["first", "third"].complete
    assert groups["first", "third"].producers == ("second", "stem")
    assert groups["second",].complete
    assert groups["second",].producers == ("first",)


def test_what_is_concatenated_is_a_set_of_channels_of_its_own() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.c, self.d = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.a(x)
            both = torch.cat([a, self.b(a)], 1)
            return self.c(both).mean() + self.d(both).mean()

    groups = {group.readers: group for group in reader_groups(Joined())}
    assert set(groups) == {("b",), ("c", "d")}
    assert not any(group.complete for group in groups.values())


def test_learned_masks_reach_the_ratio_on_streams_too() -> None:
    masks = prune(residual_net(), IMAGE, "learned", 0.5, data=quadrants(), retrain_epochs=1, **QUICK)
    assert masks.facts["channels"] == 18
    gone = {name: ~mask.flatten(2).any(2).any(0) for name, mask in masks.items() if mask.dim() == 4}
    assert torch.equal(gone["first"], gone["third"])
    assert sum(int(gone[name].sum()) for name in ("first", "second", "fourth")) == 9
    # what only masked convolutions read goes as filters too
    first = ~masks["first"].flatten(1).any(1)
    assert torch.equal(first, gone["second"])
    assert not any("pruning_model" in name for name in masks.replaced)
    with pytest.raises(ModelError, match="no convolution that reads another layer"):
        prune(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)), IMAGE, "learned", 0.5, data=quadrants()
        )


def test_a_stream_whose_masks_are_all_zero_keeps_a_channel() -> None:
    model = residual_net()
    groups = tuple(reader_groups(model))
    for name in (name for group in groups for name in group.readers):
        layer = model.get_submodule(name)
        layer.add_module("pruning_model", made := PruningModel(layer.get_parameter("weight").shape[1]))
        made.mask[1 if name == "fourth" else 0 :] = 0.0
    job = Job(model, (IMAGE,), quadrants(), 0.5, 0, "global", "mask", FROM_SCRATCH)
    masks = _folded(job, LearnedMasks(groups, 0.5, 1), fill=False)
    left = {name: int(mask.flatten(2).any(2).any(0).sum()) for name, mask in masks.items() if mask.dim() == 4}
    assert left == {"first": 1, "second": 1, "third": 1, "fourth": 1}
    assert masks["fourth"].flatten(2).any(2).any(0)[0]


def test_equation_3_by_its_sum() -> None:
    random = torch.Generator().manual_seed(3)
    phi = torch.rand(6, 4, generator=random, dtype=torch.float64)
    for memory in (0.0, 0.5):
        speed = phi[0]
        for t in range(1, 6):
            speed = velocity(phi[t], phi[t - 1], speed, memory)
            if memory == 0.0:
                expected = phi[t] - phi[t - 1]
            else:
                terms = [(-1) ** a * (memory ** (a - 1) + memory**a) * phi[t - a] for a in range(1, t + 1)]
                expected = phi[t] + torch.stack(terms).sum(0)
            assert torch.allclose(speed, expected, atol=1e-12)


def test_settled_neurons_have_no_gradient_and_the_others_theirs() -> None:
    model = small_net(5).double()
    reference = copy.deepcopy(model)
    images, labels = quadrants().train.tensors[0][:12].double(), quadrants().train.tensors[1][:12]  # type: ignore[attr-defined]
    functional.cross_entropy(reference(images), labels).backward()
    settled = {"0": [1, 3], "4": [0, 2, 5, 7], "9": [4]}
    with SettledLayers(model, ["0", "4", "9"], images[:1]) as layers:
        whole = layers.backward_flops()
        for name, rows in settled.items():
            chosen = torch.zeros(model.get_submodule(name).weight.shape[0], dtype=torch.bool)
            chosen[rows] = True
            layers.settle(name, chosen)
        saved = 2 * (2 * 9 * 64 + 4 * 72 * 16 + 1 * 32)
        assert whole - layers.backward_flops() == saved
        functional.cross_entropy(model(images), labels).backward()
    for name, parameter in model.named_parameters():
        expected = reference.get_parameter(name).grad.clone()  # type: ignore[union-attr]
        if name.endswith("weight") and name.split(".")[0] in settled:
            expected[settled[name.split(".")[0]]] = 0.0
        assert torch.allclose(parameter.grad, expected, atol=1e-12), name
    assert torch.equal(model(images), reference(images))


def test_neq_holds_settled_neurons_and_tells_what_it_saved() -> None:
    data = quadrants()
    masks = prune(small_net(), IMAGE, "neq", 0.0, data=data, epsilon=10.0, **(QUICK | {"epochs": 5}))
    assert masks.pruned_filters == 0
    flops = masks.facts["backward_flops"]
    # from the third epoch on everything is settled, and only gradients of the inputs are made
    assert flops[0] == flops[1] == 2 * flops[2] == 2 * flops[4]
    assert masks.facts["backward_flops_saved"] == pytest.approx(1 - 3.5 / 5)
    assert len(masks.facts["backward_seconds"]) == 5
    assert masks.facts["settled_neurons"] == {"0": 8, "4": 8, "9": 12}
    two = prune(small_net(), IMAGE, "neq", 0.0, data=data, epsilon=0.0, **(QUICK | {"epochs": 3}))
    assert set(two.facts["backward_flops"]) == {flops[0]}
    with pytest.raises(UserError, match=r"neq removes nothing, and the ratio is 0\.5"):
        prune(small_net(), IMAGE, "neq", 0.5, data=data)


def test_neq_needs_a_layer_whose_neurons_can_settle() -> None:
    mirrored = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
    model = nn.Sequential(mirrored, nn.ReLU(), nn.Flatten(), nn.Linear(256, 4))
    with pytest.raises(ModelError, match="Sequential has no layer whose neurons can settle"):
        prune(model, IMAGE, "neq", 0.0, data=quadrants(), **QUICK)


def test_the_outputs_that_are_compared_have_length_one() -> None:
    model, images = small_net(), quadrants().train.tensors[0][:5]  # type: ignore[attr-defined]
    found = unit_outputs(model, ["4", "9"], images)
    assert found["4"].shape == (8, 5 * 16)
    assert torch.allclose(found["9"].norm(dim=1), torch.ones(12), atol=1e-5)
