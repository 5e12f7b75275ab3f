"""Unstructured magnitude pruning against numpy, and through masks, training and shrinking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune as ep
from edgeprune import datasets, models, training
from edgeprune.errors import ModelError, WeightsError
from edgeprune.pruning import Masks, prune

IMAGE = torch.zeros(1, 1, 8, 8)


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: model.get_submodule(name).weight.detach().numpy().astype(np.float64) for name in ("0", "4")}


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9244])
def test_a_weight_goes_if_it_is_below_the_factor_times_the_deviation(scope: str, ratio: float) -> None:
    model = net()
    masks = prune(model, IMAGE, "magnitude", ratio, scope=scope)
    weights = arrays(model)
    overall = np.concatenate([one.ravel() for one in weights.values()]).std()
    gone = total = 0
    for name, weight in weights.items():
        threshold = masks.facts["factor"] * (overall if scope == "global" else weight.std())
        assert np.array_equal(masks[name].numpy(), np.abs(weight) >= threshold * (1 - 1e-12))
        gone += int((~masks[name]).sum())
        total += weight.size
    assert gone == int(ratio * total)


def test_layers_of_other_deviation_lose_as_much_locally_and_all_globally() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(1000.0)
    layers = {scope: prune(model, IMAGE, "magnitude", 0.5, scope=scope) for scope in ("global", "local")}
    lost = {scope: float((~masks["0"]).float().mean()) for scope, masks in layers.items()}
    assert lost["global"] == 0.0
    assert 0.3 < lost["local"] < 0.7


def test_masks_of_weights_hold_save_and_count(tmp_path: Path) -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[2] *= 1e-6
    masks = prune(model, IMAGE, "magnitude", 0.3, scope="global")
    masked = masks.apply(model)
    assert all(torch.equal(masked[int(name)].weight != 0, mask) for name, mask in masks.items())
    assert torch.equal(masked[0].bias, model[0].bias)
    assert (masks.filters, masks.pruned_filters) == (16, 1)
    loaded = Masks.load(masks.save(tmp_path / "m.safetensors"))
    assert loaded == masks
    assert hash(loaded) == hash(masks)
    assert loaded.facts["factor"] == masks.facts["factor"]
    with pytest.raises(ModelError, match=r"is .6, 1, 3, 3., the layer's weight .6, 1, 5, 5."):
        masks.apply(nn.Sequential(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)))


def test_weights_stay_zero_while_the_network_is_retrained() -> None:
    made = datasets.load("digits", (1, 8, 8))
    model = net()
    masks = prune(model, IMAGE, "magnitude", 0.8, scope="global")
    masked = masks.apply(model)
    training.train(masked, made, training.Schedule(epochs=1), masks=masks)
    for name, mask in masks.items():
        weight = masked.get_submodule(name).weight
        assert not weight[~mask].any()
        assert not torch.equal(weight[mask], model.get_submodule(name).weight[mask])


def test_an_unstructured_network_shrinks_by_its_empty_filters_alone() -> None:
    model = models.build("lenet5").eval()
    with torch.no_grad():
        model.get_submodule("conv2").weight[:5] *= 1e-3
    image = torch.randn(1, 1, 28, 28)
    masks = prune(model, image, "magnitude", 0.9, scope="global")
    masked = masks.apply(model)
    shrunk = ep.shrink(masked, image)
    with torch.inference_mode():
        assert torch.allclose(shrunk.model(image), masked(image), atol=1e-6)
    assert masks.pruned_filters == 5
    assert ep.count(shrunk.model, image).params < ep.count(masked, image).params


def test_bad_networks_are_refused() -> None:
    with pytest.raises(ModelError, match="no layer to prune"):
        prune(nn.Sequential(nn.ReLU()), IMAGE, "magnitude", 0.5)
    model = net()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="layer 4 holds NaN"):
        prune(model, IMAGE, "magnitude", 0.5)
