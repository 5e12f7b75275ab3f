"""Weights read, copied and added up in pieces, and decisions taken again in part, give what the whole gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from masked_networks import SmallResNet, mask
from torch import nn

from edgeprune.shrinking import shrink
from edgeprune.shrinking.constants import propagate
from edgeprune.shrinking.copying import private_copy
from edgeprune.shrinking.graph import trace
from edgeprune.shrinking.liveness import find_live
from edgeprune.shrinking.operators.kernels import Kernels, picked

LAYERS = {
    "linear": nn.Linear(49 * 40, 90),
    "convolution": nn.Conv2d(160, 120, 3),
    "pointwise": nn.Conv2d(600, 200, 1),
    "transposed": nn.ConvTranspose2d(120, 130, 3),
    "small": nn.Conv2d(4, 6, 3),
}


def kernels_of(name: str, seed: int) -> Kernels:
    """A layer with zero filters, zero inputs and single zero kernels."""
    layer, generator = LAYERS[name], torch.Generator().manual_seed(seed)
    weight = torch.randn(Kernels(layer).weight.shape, generator=generator)
    weight[torch.rand(len(weight), generator=generator) < 0.3] = 0.0
    weight[:, torch.rand(weight.shape[1], generator=generator) < 0.2] = 0.0
    weight[torch.rand(weight.shape[:2], generator=generator) < 0.3] = 0.0
    with torch.no_grad():
        Kernels(layer).weight.copy_(weight)
    return Kernels(layer)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("order", ["some", "runs of 49", "shuffled", "none", "all"])
def test_cuts_what_indexing_cuts(name: str, order: str) -> None:
    kernels, random = kernels_of(name, seed=0), np.random.default_rng(0)
    outputs, total = kernels.weight.shape[:2]
    inputs = np.flatnonzero(random.random(total) < 0.5)
    if order == "runs of 49":
        runs = np.flatnonzero(random.random(total // 49) < 0.5)[::-1]
        inputs = (runs[:, None] * 49 + np.arange(49)).reshape(-1)
    elif order == "shuffled":
        inputs = random.permutation(inputs)
    elif order in ("none", "all"):
        inputs = np.arange(total if order == "all" else 0)
    rows = random.permutation(np.flatnonzero(random.random(outputs) < 0.7))
    expected = kernels.weight[torch.from_numpy(rows)][:, torch.from_numpy(inputs)]
    assert torch.equal(kernels.cut(rows, inputs), expected)
    assert torch.equal(picked(kernels.weight.half(), rows, inputs), expected.half())


@pytest.mark.parametrize("name", LAYERS)
def test_adds_up_and_connects_like_the_whole_weight(name: str) -> None:
    kernels, random = kernels_of(name, seed=1), np.random.default_rng(1)
    weight = kernels.weight.double().flatten(2) if kernels.weight.dim() > 2 else kernels.weight.double()[:, :, None]
    outputs, total = weight.shape[:2]
    constants = np.where(random.random(total) < 0.5, random.normal(size=total), 0.0)
    rows = random.permutation(np.flatnonzero(random.random(outputs) < 0.7))
    expected = torch.einsum("oik,i->ok", weight, torch.from_numpy(constants))
    assert np.abs(kernels.response(constants) - expected.sum(dim=1).numpy()).max() < 1e-10
    assert (kernels.added_up(rows, constants) - expected[torch.from_numpy(rows)]).abs().max() < 1e-10
    connected = (weight != 0).any(dim=2).numpy()
    for part in (0.0, 0.02, 0.5, 1.0):
        wanted, inputs = random.random(outputs) < part, random.random(total) < part
        assert (kernels.read_by(wanted) == connected[wanted].any(axis=0)).all()
        assert (kernels.reached_by(inputs) == connected[:, inputs].any(axis=1)).all()


def test_widened_sums_are_decided_as_from_the_start() -> None:
    masked = mask(SmallResNet(depth=3, width=16), 0.5, seed=0, beta=True)
    network = trace(private_copy(masked), (torch.zeros(1, 3, 32, 32),))
    known = propagate(network)
    first = find_live(network, known)
    sums = [site.node for site in network.sites if site.operator.is_addition]
    widened = frozenset((node, place % 2) for place, node in enumerate(sums[::2]))
    again, whole = find_live(network, known, widened, earlier=first), find_live(network, known, widened)
    taken_again = [node for node in whole.decisions if again.decisions[node] is not first.decisions[node]]
    assert 0 < len(taken_again) < len(network.sites)
    for node, decision in whole.decisions.items():
        assert (decision.keep == again.decisions[node].keep).all()
        assert (decision.valued == again.decisions[node].valued).all()
        assert decision[2:] == again.decisions[node][2:]
        for (operand, wish), (other, same) in zip(whole.asked[node], again.asked[node], strict=True):
            assert operand is other
            assert all(np.array_equal(*pair) for pair in zip(wish, same, strict=True))


@pytest.mark.parametrize("hooked", [False, True])
def test_an_identity_is_passed_by_unless_it_does_something(hooked: bool) -> None:
    layers = nn.Conv2d(3, 8, 3), nn.Identity(), nn.ReLU(), nn.Conv2d(8, 4, 3)
    net = mask(nn.Sequential(*layers), 0.5, seed=0, beta=True)
    if hooked:
        net[1].register_forward_hook(lambda module, inputs, output: output * 2 + 1)
    image = torch.randn(2, 3, 9, 9)
    small = shrink(net, image).model
    assert any(type(module) is nn.Identity for module in small.modules()) is hooked
    with torch.no_grad():
        assert (small(image) - net(image)).abs().max() < 1e-5 * net(image).abs().max()
