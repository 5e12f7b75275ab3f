"""Shrunk networks of torchvision and timm give the masked networks' numbers, at any batch and image size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgeprune.shrinking import shrink
from tests.unit.outside_masks import MASKS, mask
from tests.unit.outside_networks import NETWORKS, build

SPECIAL = ("gammas", "cuts", "inputs", "columns", "l1", "random")
WITHOUT_BATCH_NORM = ("alexnet", "vgg11", "vgg16", "squeezenet1_0", "convnext_tiny", "vit_b_16", "vit_tiny_patch16_224")
RATIOS = (30, 50, 70)
# every network has filters in A and in B and one of the special masks; these are cheap and have all
THOROUGH = ("resnet18", "mobilenet_v2", "squeezenet1_0")


def _cases() -> list[tuple[str, str]]:
    cases = []
    for place, name in enumerate(NETWORKS):
        if name in THOROUGH:
            cases += [(name, masks) for masks in MASKS]
        else:
            a, b = RATIOS[place % 3], RATIOS[(place + 1) % 3]
            cases += [(name, f"A{a}"), (name, f"B{b}"), (name, SPECIAL[place % len(SPECIAL)])]
    return [(name, masks) for name, masks in cases if masks != "gammas" or name not in WITHOUT_BATCH_NORM]


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = model(x)
    return y["out"] if isinstance(y, dict) else y


def _assert_equal(masked: nn.Module, shrunk: nn.Module, inputs: list[Tensor], tolerance: float) -> None:
    for x in inputs:
        expected, actual = _outputs(masked, x), _outputs(shrunk, x)
        assert torch.isfinite(expected).all()
        difference = (expected - actual).abs().max().item()
        assert difference <= tolerance * max(1.0, expected.abs().max().item()), tuple(x.shape)


@pytest.mark.parametrize(("name", "masks"), _cases())
def test_the_numbers_are_the_same(name: str, masks: str) -> None:
    outside = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(batch, 3, *outside.size, generator=generator) for batch in (1, 2)]
    if outside.other is not None:
        inputs.append(torch.randn(1, 3, *outside.other, generator=generator))
    masked = mask(build(name), inputs[0], masks)
    shrunk = shrink(masked, inputs[0])
    assert shrunk.report.params_after < shrunk.report.params_before
    _assert_equal(masked, shrunk.model, inputs, 1e-5)
    masked = copy.deepcopy(masked).double()
    inputs = [x.double() for x in inputs]
    _assert_equal(masked, shrink(masked, inputs[0]).model, inputs, 1e-10)
