"""Networks of torchvision and timm for the tests of shrinking: start with `NETWORKS`, and `build` to get one.

The two packages are installed without their dependencies (`make test`), so torchvision may lack its compiled part; the
operators that its Python part names are then declared here, and never run.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn


@dataclass(frozen=True)
class Outside:
    """One network: how to build it, the image it is traced with, and another size if it takes one."""

    build: Callable[[], nn.Module]
    size: tuple[int, int] = (64, 64)
    other: tuple[int, int] | None = (48, 80)


def torchvision() -> ModuleType:
    """The package; skips the test where it is not installed, and fails it in CI."""
    try:
        return _package("torchvision")
    except RuntimeError:  # its compiled part does not fit this torch, so its operators are missing
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        return _package("torchvision")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs {name}; install it with `make test`: {error}")


def build(name: str) -> nn.Module:
    """A fresh network in eval mode, the same at each call."""
    torch.manual_seed(0)
    return NETWORKS[name].build().eval()


def _vision(name: str, **options: Any) -> nn.Module:
    return torchvision().models.get_model(name, weights=None, **{"num_classes": 10} | options)


def _segmentation(name: str) -> nn.Module:
    return _vision(name, weights_backbone=None)


def _timm(name: str, **options: Any) -> nn.Module:
    torchvision()  # timm imports it
    return _package("timm").create_model(name, num_classes=10, **options)


def _narrow_head(name: str) -> nn.Module:
    """AlexNet and VGG without their 4,096 features: most of the time would go into these."""
    with torch.device("meta"):
        model = _vision(name)
    classifier, widths = model.classifier, []
    for place, layer in enumerate(classifier):
        if isinstance(layer, nn.Linear):
            widths.append(64 if layer.out_features == 4096 else layer.out_features)
            classifier[place] = nn.Linear(layer.in_features if len(widths) == 1 else widths[-2], widths[-1])
    return model.to_empty(device="cpu")


def _convnext() -> nn.Module:
    package = torchvision().models.convnext
    widths = [(48, 96, 2), (96, 192, 2), (192, 384, 3), (384, None, 2)]
    return package.ConvNeXt([package.CNBlockConfig(*row) for row in widths], layer_scale=0.5, num_classes=10)


def _vit() -> nn.Module:
    package = torchvision().models.vision_transformer
    return package.VisionTransformer(64, 16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)


_AT_96 = partial(Outside, size=(96, 96), other=(96, 128))

NETWORKS: dict[str, Outside] = {
    "alexnet": _AT_96(partial(_narrow_head, "alexnet")),
    "vgg11": Outside(partial(_narrow_head, "vgg11")),
    "vgg16": Outside(partial(_narrow_head, "vgg16")),
    "vgg16_bn": Outside(partial(_narrow_head, "vgg16_bn")),
    "inception_v3": _AT_96(partial(_vision, "inception_v3", init_weights=False, aux_logits=False)),
    "googlenet": Outside(partial(_vision, "googlenet", init_weights=False, aux_logits=False)),
    **{
        name: Outside(partial(_vision, name))
        for name in (
            "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "squeezenet1_0", "densenet121",
            "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "efficientnet_b0",
            "regnet_x_400mf", "regnet_y_400mf",
        )
    },
    **{
        name: Outside(partial(_segmentation, name))
        for name in ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large")
    },
    "hrnet_w18": Outside(partial(_timm, "hrnet_w18"), other=(64, 96)),
    "seresnet18": Outside(partial(_timm, "seresnet18")),
    "convnext_tiny": Outside(_convnext),
    "vit_b_16": Outside(_vit, other=None),
    "vit_tiny_patch16_224": Outside(partial(_timm, "vit_tiny_patch16_224", img_size=64, depth=3), other=None),
}  # fmt: skip
