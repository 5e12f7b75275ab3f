"""ThiNet, channel pruning and DCP: their equations in numpy, planted cases, and what is mended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import edgeprune as ep
from edgeprune.errors import UserError
from edgeprune.pruning import Masks, prune
from edgeprune.pruning.criteria import channel_pruning, dcp, layerwise, thinet
from edgeprune.pruning.criteria.context import Network
from edgeprune.pruning.sites import find_sites

METHODS = ["thinet", "channel-pruning", "dcp"]
IMAGE = torch.zeros(1, 2, 8, 8)


def net(kernel: int = 3, stride: int = 1) -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, kernel, stride, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4 * (8 // stride // 2) ** 2, 5), nn.ReLU(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


def data(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(7)
    return [(torch.randn(8, 2, 8, 8), torch.randint(3, (8,))) for _ in range(count)]


def readings(seed: int = 0) -> list[layerwise.Reading]:
    """Two readers of five channels, with kernels of 4 places and 1."""
    torch.manual_seed(seed)
    made = []
    for name, places, outputs in (("a", 4, 3), ("b", 1, 2)):
        inputs = torch.randn(40, 5, places).double()
        weight = torch.randn(outputs, 5, places).double()
        given = torch.einsum("scp,ocp->so", inputs, weight) + 0.1 * torch.randn(40, outputs).double()
        made.append(layerwise.Reading(name, inputs, weight, torch.zeros(outputs).double(), given, torch.zeros(40)))
    return made


@pytest.mark.parametrize("count", [1, 2, 4])
def test_thinet_takes_the_channel_with_the_smallest_sum_each_time(count: int) -> None:
    parts = torch.randn(30, 6).double()
    values, gone = parts.numpy(), []
    while len(gone) < count:
        loss = {one: (values[:, [*gone, one]].sum(1) ** 2).sum() for one in range(6) if one not in gone}
        gone.append(min(loss, key=lambda one: loss[one]))
    assert thinet._greedy(parts, count).nonzero().flatten().tolist() == sorted(gone)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_channel_pruning_keeps_what_lasso_keeps(count: int) -> None:
    given = readings()
    gone = channel_pruning._lasso(given, count).numpy()
    # an independent solver, by coordinates: the smallest penalty that leaves so many factors
    columns, target = [], []
    for one in given:
        weight = one.weight.numpy()
        unit = weight / np.sqrt((weight**2).sum((0, 2)))[None, :, None]
        parts = np.stack([one.inputs.numpy()[:, c] @ unit[:, c].T for c in range(5)], 2)  # [s, o, c]
        columns.append(parts.reshape(-1, 5))
        target.append(one.outputs.numpy().ravel())
    together, wanted = np.concatenate(columns), np.concatenate(target)
    for penalty in np.geomspace(1e-4, 10.0, 400):
        factors = Lasso(penalty, fit_intercept=False, tol=1e-10, max_iter=20000).fit(together, wanted).coef_
        if (factors != 0).sum() <= 5 - count:
            break
    assert (factors != 0).sum() == 5 - count
    assert np.array_equal(gone, factors == 0)


def test_channel_pruning_solves_the_least_squares_of_what_stays() -> None:
    kept = torch.tensor([True, False, True, True, False])
    for one in readings():
        inputs = one.inputs.numpy()[:, kept.numpy()].reshape(40, -1)
        expected = np.linalg.solve(inputs.T @ inputs, inputs.T @ one.outputs.numpy()).T
        found = channel_pruning._solve(one, kept)
        np.testing.assert_allclose(found[:, kept].flatten(1).numpy(), expected, rtol=1e-9, atol=1e-10)
        assert torch.equal(found[:, ~kept], one.weight[:, ~kept])


def test_dcp_s_gradient_is_that_of_distance_and_cross_entropy() -> None:
    torch.manual_seed(3)
    one = replace(readings()[0], bias=torch.randn(3).double(), labels=torch.randint(4, (40,)))
    loss = dcp._Loss(one, 0.7)
    weight = 0.5 * one.weight.numpy()
    inputs, bias, labels = one.inputs.numpy(), one.bias.numpy(), one.labels.numpy()
    given = np.einsum("scp,ocp->so", inputs, weight)
    slopes, offsets = (part.numpy() for part in loss._classifier)
    scores = np.maximum(given + bias, 0.0) @ slopes + offsets
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    by_features = (shares - np.eye(4)[labels]) @ slopes.T * (given + bias > 0)
    by_outputs = (given - one.outputs.numpy() + 0.7 * by_features) / 40
    expected = np.einsum("so,scp->ocp", by_outputs, inputs)
    np.testing.assert_allclose(loss.gradient(torch.from_numpy(weight)).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_dcp_keeps_the_channel_that_tells_classes_apart() -> None:
    torch.manual_seed(5)
    labels = torch.randint(2, (400,))
    inputs = torch.randn(400, 3, 1).double()
    inputs[:, 1, 0] = 0.5 * (2.0 * labels.double() - 1.0)  # small, and all there is of the class
    weight = torch.eye(3).double()[:, :, None]
    outputs = torch.einsum("scp,ocp->so", inputs, weight)
    one = layerwise.Reading("a", inputs, weight, torch.zeros(3).double(), outputs, labels)
    first = {}
    for discrimination in (1e-6, 100.0):
        needs = dcp._Loss(one, discrimination).gradient(torch.full_like(weight, 1e-3)).square().sum((0, 2))
        first[discrimination] = int(needs.argmax())
    assert first[1e-6] != 1
    assert first[100.0] == 1


def test_dcp_needs_a_class_for_each_image() -> None:
    pixels = [(images, torch.zeros(len(images), 8, 8, dtype=torch.long)) for images, _ in data(2)]
    with pytest.raises(UserError, match="method dcp tells classes apart by layer 3, and an image has a label for each"):
        prune(net(), IMAGE, "dcp", {"0": 0.5}, data=pixels)


@pytest.mark.parametrize(
    ("kernel", "stride", "layer"), [(3, 1, "0"), (3, 2, "0"), (2, 2, "0"), (3, 1, "3"), (3, 1, "7")]
)
def test_what_is_read_gives_what_is_put_out(kernel: int, stride: int, layer: str) -> None:
    model = net(kernel, stride)
    if kernel == 2:
        model = model[:6]
    seen: list[layerwise.Reading] = []

    def step(given: list[layerwise.Reading], count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen.extend(given)
        return torch.zeros(given[0].inputs.shape[1], dtype=torch.bool), {}

    sites = [site for site in find_sites(model) if site.layer == layer]
    network = Network("thinet", model, sites, (IMAGE,), data(2), torch.Generator().manual_seed(1))
    layerwise.choose(network, {layer: 0}, 3, step)
    (reading,) = seen
    computed = torch.einsum("scp,ocp->so", reading.inputs, reading.weight)
    assert torch.allclose(computed, reading.outputs, atol=1e-5)
    assert len(computed) == 16 * (1 if layer in ("3", "7") else 3)


@pytest.mark.parametrize("method", METHODS)
def test_channels_that_add_nothing_go_and_nothing_is_lost(method: str) -> None:
    model, gone = net(), [1, 4]
    with torch.no_grad():
        model[3].weight[:, gone] = 0.0
    masks = prune(model, IMAGE, method, {"0": 1 / 3}, data=data())
    assert (~masks["0"]).nonzero().flatten().tolist() == gone
    images = torch.randn(4, 2, 8, 8)
    if method != "dcp":  # whose classifier moves the weights too
        assert torch.allclose(masks.apply(model)(images), model(images), atol=1e-4)


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_repeated_channel_goes_and_its_twin_takes_its_part(method: str) -> None:
    model = net()
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var", "1.weight", "1.bias"):
            value = model.state_dict()[name]
            value[5] = value[2]
        # both are read with one pattern, so that one factor makes up for the other; the rest matter more
        model[3].weight[:, 5] = 0.5 * model[3].weight[:, 2]
        model[3].weight[:, [0, 1, 3, 4]] *= 10.0
    masks = prune(model, IMAGE, method, {"0": 1 / 6}, data=data())
    assert masks["0"].tolist().count(False) == 1
    assert not (masks["0"][2] and masks["0"][5])
    images = torch.randn(4, 2, 8, 8)
    assert torch.allclose(masks.apply(model)(images), model(images), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_mending_brings_the_output_nearer(method: str, tmp_path: Path) -> None:
    model = net()
    masks = prune(model, IMAGE, method, {"0": 0.5}, data=data())
    unmended = Masks(masks.kept, masks.batchnorms)
    images = torch.cat([one for one, _ in data()])
    cut = nn.Sequential(*list(model)[:4])
    errors = [float((nn.Sequential(*list(one.apply(model))[:4])(images) - cut(images)).square().mean().detach())
              for one in (masks, unmended)]  # fmt: skip
    assert errors[0] < errors[1]
    loaded = Masks.load(masks.save(tmp_path / "m.safetensors"))
    masked = loaded.apply(model)
    assert torch.equal(masked[3].weight, masks.apply(model)[3].weight)
    shrunk = ep.shrink(masked, images[:1])
    assert torch.allclose(shrunk.model(images), masked(images), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_one_result(method: str) -> None:
    first, again = (prune(net(), IMAGE, method, 0.5, data=data(), seed=3) for _ in range(2))
    assert first == again
    assert all(torch.equal(first.replaced[name], again.replaced[name]) for name in first.replaced)
    assert set(first.replaced) == {"3.weight", "7.weight", "9.weight"}


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_gives_nothing_is_pruned_like_any(method: str) -> None:
    model = net()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(-1.0)
    masks = prune(model, IMAGE, method, 0.5, data=data(2))
    assert int((~masks["0"]).sum()) == 3
    assert all(bool(value.isfinite().all()) for value in masks.replaced.values())


@pytest.mark.parametrize("method", METHODS)
def test_requests_that_cannot_be_met(method: str) -> None:
    with pytest.raises(UserError, match="compares filters of one layer"):
        prune(net(), IMAGE, method, 0.5, data=data(), scope="global")
    with pytest.raises(UserError, match="batchnorm: keep shifts it"):
        prune(net(), IMAGE, method, 0.5, data=data(), batchnorm="keep")
