"""Shrunk networks of torchvision and timm are ordinary modules: each trains, is saved as data, and exports to ONNX."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import Shrunk, load_shrunk, shrink
from tests.unit.outside_masks import mask
from tests.unit.outside_networks import NETWORKS, build

DYNAMO = {"alexnet", "vgg11", "vgg16", "vgg16_bn", "mobilenet_v3_small"}
"""Exported by torch.export: the legacy exporter has no pooling to sizes that do not divide the image's, as VGG's does.

The others go through the legacy exporter, which takes a fraction of the time.
"""


ASLEEP = {"regnet_y_400mf": ".f.b.", "seresnet18": ".se.fc"}
"""Layers of few channels in front of a ReLU that these images, of random numbers, may leave at zero."""


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[str, Shrunk]:
    name: str = request.param
    image = _images(name, 1)
    return name, shrink(mask(build(name), image, "B50"), image)


def _images(name: str, count: int) -> Tensor:
    return torch.randn(count, 3, *NETWORKS[name].size, generator=torch.Generator().manual_seed(1))


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    scores = model(images)
    return scores["out"] if isinstance(scores, dict) else scores


def test_a_training_step_changes_every_parameter(network: tuple[str, Shrunk]) -> None:
    name, shrunk = network
    model = copy.deepcopy(shrunk.model).train()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    scores = _scores(model, _images(name, 4))
    F.cross_entropy(scores if scores.dim() == 2 else scores.mean((2, 3)), torch.arange(4)).backward()
    optimiser.step()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        if name in ASLEEP and ASLEEP[name] in key and not parameter.grad.any():
            continue
        assert parameter.grad.any(), key
        # a shift that a normalisation in training mode takes off again has but rounding for a gradient
        assert not torch.equal(parameter, before[key]) or parameter.grad.abs().max() < 1e-6, key


def test_is_saved_without_code_and_loads(network: tuple[str, Shrunk], tmp_path: Path) -> None:
    name, shrunk = network
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shrunk.save(tmp_path / name)
    loaded, images = load_shrunk(tmp_path / name), _images(name, 2)
    assert loaded.state_dict().keys() == shrunk.model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(_scores(loaded, images), _scores(shrunk.model, images))


def test_exports_to_onnx(network: tuple[str, Shrunk], tmp_path: Path) -> None:
    name, shrunk = network
    images, path = _images(name, 2), tmp_path / "shrunk.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = copy.deepcopy(shrunk.model)
        torch.onnx.export(model, (images,), str(path), dynamo=name in DYNAMO, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    actual = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.no_grad():
        expected = _scores(shrunk.model, images).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
