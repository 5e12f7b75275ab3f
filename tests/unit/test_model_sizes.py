"""Parameters and MACs of every network against the figures of the papers, or of its own publication."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import edgeprune as ep
from edgeprune import models
from edgeprune.counting import Counts

MB = 1e6


@dataclass(frozen=True)
class Published:
    """A figure of a paper: millions of parameters and 10^9 MACs, as they are printed there."""

    model: str
    classes: int
    params: str | None = None
    macs: str | None = None
    off: float = 0.0
    batchnorm: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    scale: int = 1


FIGURES = [
    # PSP, table 3, and the thesis: CIFAR's ResNets without the parameters of batch-norm
    Published("resnet56", 10, "0.85", "0.13", batchnorm=False),
    Published("resnet56", 100, "0.86", "0.13", batchnorm=False),
    Published("resnet110", 10, "1.72", batchnorm=False),
    Published("densenet40", 10, "1.02", "0.27", off=0.02),
    Published("densenet40", 100, "1.06", "0.27", off=0.02),
    Published("densenet100", 10, "6.98", "1.77"),
    Published("densenet100", 100, "7.09", "1.77", off=0.005),
    # PSP, table 4
    Published("resnet18", 1000, "11.85", "1.82", off=0.014),
    Published("resnet50", 1000, "25.61", "4.09", off=0.003),
    Published("densenet_bc121", 1000, "7.91", "2.84", off=0.009),
    Published("densenet_c63", 1000, "10.80", "3.05", batchnorm=False),
    Published("densenet_c87", 1000, "23.66", "5.23", batchnorm=False),
    Published("mobilenetv2", 1000, "6.9", "0.59", off=0.12, options={"width": 1.4}),
    # He et al. 2016, table 1: 3.8 10^9 with the stride at the first convolution
    Published("resnet50", 1000, macs="3.8", off=0.02, options={"stride": "1x1"}),
    Published("resnet101", 1000, macs="7.6", off=0.03, options={"stride": "1x1"}),
    # Simonyan and Zisserman 2015, table 2
    Published("vgg16_imagenet", 1000, "138"),
    # Sandler et al. 2018, table 4
    Published("mobilenetv2", 1000, "3.4", "0.300", off=0.04),
    # Badrinarayanan et al. 2017, table 4, 11 classes
    Published("segnet", 12, "29.45", shape=(3, 32, 32)),
    # Sun et al. 2019, High-resolution representations, table 3, at 1024x2048: counted on a 256th of the pixels
    Published("hrnet48", 19, "65.9", "747.3", off=0.001, shape=(3, 64, 128), scale=256),
]


@cache
def counts(model: str, classes: int, options: tuple[tuple[str, Any], ...], shape: tuple[int, ...]) -> Counts:
    with torch.device("meta"):  # nothing is learnt from initial weights, and they take most of the time
        network = models.build(model, classes, **dict(options)).eval()
    return ep.count(network.to_empty(device="cpu"), torch.zeros(1, *shape))


@pytest.mark.parametrize("one", FIGURES, ids=lambda one: f"{one.model}-{one.classes}-{one.options}")
def test_a_network_has_its_published_size(one: Published) -> None:
    shape = one.shape or models.entry(one.model).input_shape
    found = counts(one.model, one.classes, tuple(one.options.items()), shape)
    params = found.params if one.batchnorm else sum(layer.params for layer in found.layers)
    for printed, value in ((one.params, params / 1e6), (one.macs, found.macs * one.scale / 1e9)):
        if printed is not None:
            half_a_digit = 0.5 * 10.0 ** -len(printed.partition(".")[2])
            assert value == pytest.approx(float(printed), abs=half_a_digit * 1.001, rel=one.off), printed


@pytest.mark.parametrize(
    ("name", "classes", "megabytes", "off"),
    # the round-trip paper, table 3; what its files hold besides weights is not said
    [("vgg16", 10, 60.0, 0.001), ("alexnet", 100, 94.6, 0.001), ("resnet32", 10, 2.0, 0.07),
     ("resnet101", 1000, 178.4, 0.002)],
)  # fmt: skip
def test_weights_take_the_papers_megabytes(name: str, classes: int, megabytes: float, off: float) -> None:
    with torch.device("meta"):
        model = models.build(name, classes)
    assert 4 * sum(one.numel() for one in model.parameters()) / MB == pytest.approx(megabytes, rel=off)


def test_exact_counts_that_follow_from_the_layers() -> None:
    """Written out by hand, where the papers print none."""
    alexnet = [3 * 64 * 9 + 64, 64 * 192 * 9 + 192, 192 * 384 * 9 + 384, 384 * 256 * 9 + 256, 256 * 256 * 9 + 256]
    alexnet += [1024 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 100 + 100]
    expected = {
        ("lenet300", 10): 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10,
        ("alexnet", 100): sum(alexnet),
    }
    for (name, classes), size in expected.items():
        assert sum(one.numel() for one in models.build(name, classes).parameters()) == size


def test_vgg_s_convolutions_are_the_configuration_s() -> None:
    for name in ("vgg16", "vgg16_imagenet"):
        with torch.device("meta"):
            model = models.build(name)
        found = [one for one in model.modules() if isinstance(one, nn.Conv2d)]
        assert [one.out_channels for one in found] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
        assert sum(isinstance(one, nn.BatchNorm2d) for one in model.modules()) == (13 if name == "vgg16" else 0)
