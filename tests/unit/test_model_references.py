"""The same networks as torchvision's and timm's: equal parameter counts, and equal outputs with their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from edgeprune import models
from edgeprune.models.segnet import unpool
from tests.unit.outside_masks import randomise
from tests.unit.outside_networks import _package, torchvision

TOLERANCE = 1e-5


def vision(name: str, **options: Any) -> nn.Module:
    return torchvision().models.get_model(name, weights=None, num_classes=11, **options)


def densenet(growth: int, blocks: tuple[int, ...]) -> nn.Module:
    return torchvision().models.densenet.DenseNet(growth, blocks, 2 * growth, num_classes=11)


CASES: list[tuple[str, dict[str, Any], Callable[[], nn.Module], tuple[int, int]]] = [
    ("resnet18", {}, partial(vision, "resnet18"), (64, 96)),
    ("resnet50", {}, partial(vision, "resnet50"), (64, 96)),
    ("resnet101", {}, partial(vision, "resnet101"), (64, 64)),
    ("vgg16_imagenet", {}, partial(vision, "vgg16"), (224, 224)),
    ("vgg16_imagenet", {"batchnorm": True}, partial(vision, "vgg16_bn"), (224, 224)),
    ("densenet_bc121", {}, partial(vision, "densenet121"), (64, 96)),
    ("mobilenetv2", {}, partial(vision, "mobilenet_v2"), (64, 96)),
    ("mobilenetv2", {"width": 1.4}, partial(vision, "mobilenet_v2", width_mult=1.4), (64, 96)),
    ("deeplabv3", {}, partial(vision, "deeplabv3_resnet50", weights_backbone=None), (64, 96)),
    ("deeplabv3", {"backbone": "resnet101"}, partial(vision, "deeplabv3_resnet101", weights_backbone=None), (64, 64)),
]


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Weights and statistics, one after the other: both list their layers in the order of the forward pass."""
    theirs, ours = source.state_dict(), target.state_dict()
    assert [list(one.shape) for one in theirs.values()] == [list(one.shape) for one in ours.values()]
    target.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return float((first - second).abs().max() / second.abs().max())


@pytest.mark.parametrize(("name", "options", "build", "size"), CASES, ids=lambda one: one if type(one) is str else "")
def test_equal_to_torchvision(
    name: str, options: dict[str, Any], build: Callable[[], nn.Module], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):  # their initial weights would take most of the time
        source, target = build(), models.build(name, 11, **options)
    source, target = source.to_empty(device="cpu").eval(), target.to_empty(device="cpu").eval()
    assert sum(one.numel() for one in target.parameters()) == sum(one.numel() for one in source.parameters())
    randomise(source, torch.Generator().manual_seed(0))
    copy_in_order(source, target)
    image = torch.randn(1 if size[0] > 100 else 2, 3, *size)
    with torch.inference_mode():
        theirs = source(image)
        assert difference(target(image), theirs["out"] if isinstance(theirs, dict) else theirs) <= TOLERANCE


def test_unpooling_equals_torch_s_for_distinct_and_for_equal_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    for most in (3, 1000):  # of few whole numbers most windows hold their maximum twice
        pooled = torch.randint(most, (2, 5, 12, 18), generator=generator).float()
        smaller, places = nn.functional.max_pool2d(pooled, 2, return_indices=True)
        values = torch.randn(smaller.shape, generator=generator)
        assert torch.equal(unpool(values, pooled), nn.functional.max_unpool2d(values, places, 2))


@pytest.mark.parametrize("width", [18, 48])
def test_hrnet_s_four_resolutions_equal_timm_s(width: int) -> None:
    torchvision()  # timm imports it
    torch.manual_seed(0)
    source = _package("timm").create_model(f"hrnet_w{width}").eval()
    target = models.build(f"hrnet{width}", 19).eval()
    for name in ("incre_modules", "downsamp_modules", "final_layer", "classifier"):
        delattr(source, name)
    randomise(source, torch.Generator().manual_seed(0))
    theirs = source.state_dict()
    ours = {name: one for name, one in target.state_dict().items() if not name.startswith("head.")}
    in_order = reordered(list(theirs))
    assert [list(theirs[name].shape) for name in in_order] == [list(one.shape) for one in ours.values()]
    target.load_state_dict(dict(zip(ours, (theirs[name] for name in in_order), strict=True)), strict=False)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        first = source.act2(source.bn2(source.conv2(source.act1(source.bn1(source.conv1(image))))))
        expected = source.stages(first)
        for got, want in zip(target.features(image), expected, strict=True):
            assert difference(got, want) <= TOLERANCE


def reordered(names: list[str]) -> list[str]:
    """timm's names with all transitions before the stages, as they are listed here."""

    def place(name: str) -> int:
        return 1 if name.startswith("transition") else 2 if name.startswith("stage") else 0

    return sorted(names, key=place)
