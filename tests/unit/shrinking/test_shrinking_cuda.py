"""A model on a CUDA device is shrunk there: the same network as on the CPU, no tensor left behind on another device."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from masked_networks import RandomNetwork, SmallResNet, mask, mask_randomly
from torch import nn

from edgeprune.shrinking import largest_difference, load_shrunk, shrink

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a torch built for it")


@pytest.mark.parametrize("additions", ["auto", "gather"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_is_the_network_of_the_cpu(additions: str, shortcut: str, tmp_path: Path) -> None:
    masked, images = mask(SmallResNet(2, 8, shortcut), 0.5, seed=0, beta=True).double(), torch.randn(2, 3, 16, 16)
    near = shrink(masked, images.double(), additions=additions)
    far = shrink(copy.deepcopy(masked).cuda(), images.double().cuda(), additions=additions)
    assert {value.device.type for value in far.model.state_dict().values()} == {"cuda"}
    assert far.report.layers == near.report.layers
    far.save(tmp_path / "net")
    loaded = load_shrunk(tmp_path / "net", device="cuda")
    with torch.no_grad():
        assert torch.equal(loaded(images.double().cuda()), far.model(images.double().cuda()))
    assert largest_difference(masked, far.model.cpu(), (images.double(),))[0] <= 1e-10


class BySize(nn.Sequential):
    """torch.fx can not follow it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 0.5 if x.shape[-1] > 8 else x)


@pytest.mark.parametrize("method", ["connectivity", "gradient"])
def test_both_tracers_and_methods_stay_on_the_device(method: str) -> None:
    masked = mask(BySize(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)), 0.5, seed=0, beta=True).cuda()
    model = shrink(masked, torch.randn(1, 3, 16, 16).cuda(), method=method).model
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_are_exact_on_the_device(seed: int) -> None:
    masked = mask_randomly(RandomNetwork(seed), seed).cuda()
    images = torch.randn(2, masked.inputs, masked.size, masked.size, dtype=torch.float64).cuda()
    assert shrink(masked, images).report.difference <= 1e-10
