"""The shrunk network is as small as two-way connectivity allows, by the paper's own method as an oracle."""

from __future__ import annotations

import pytest
import torch
from connectivity_oracle import with_constants_alive
from masked_networks import SmallResNet, lenet, mask
from torch import nn

from edgeprune.counting import count
from edgeprune.shrinking import shrink
from edgeprune.shrinking.minimum import minimum
from tests.unit.outside_masks import mask as mask_outside
from tests.unit.outside_networks import NETWORKS, build

# the rest hold groups, which go whole, or normalisations over channels, or are variants of these
OUTSIDE = (
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "squeezenet1_0", "densenet121", "inception_v3", "googlenet",
    "mobilenet_v2", "mnasnet1_0", "fcn_resnet50", "hrnet_w18",
)  # fmt: skip
NORMALISED = ("convnext_tiny",)  # layer normalisations take numbers for the channels that are gone
# with constants, gates and shuffles need more than a carrier a layer: a number times a gate depends on the image
GATED = ("mobilenet_v3_small", "efficientnet_b0", "seresnet18", "deeplabv3_mobilenet_v3_large", "shufflenet_v2_x1_0")
IN_A = OUTSIDE + GATED + NORMALISED


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("depth", [3, 9], ids=["resnet20", "resnet56"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7])
def test_residual_networks_are_minimal(shortcut: str, depth: int, ratio: float) -> None:
    masked = mask(SmallResNet(depth, 16, shortcut), ratio, seed=depth, beta=False)
    inputs = torch.zeros(1, 3, 16, 16)
    least = minimum(masked, inputs).params
    assert shrink(masked, inputs, additions="gather").report.params_after == least
    assert shrink(masked, inputs).report.params_after <= 1.001 * least  # a few zero rows that save a copy


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7])
def test_lenet_is_minimal_with_constants_too(ratio: float) -> None:
    inputs = torch.zeros(1, 1, 28, 28)
    for beta in (False, True):  # no zero border, so constants cost nothing
        masked = mask(lenet(), ratio, seed=1, beta=beta)
        assert shrink(masked, inputs).report.params_after == minimum(masked, inputs).params


def test_a_carrier_costs_at_most_one_channel_a_zero_bordered_layer() -> None:
    with_zeros = mask(SmallResNet(9, 16), 0.5, seed=0, beta=False)
    with_constants = mask(SmallResNet(9, 16), 0.5, seed=0, beta=True)
    inputs = torch.zeros(1, 3, 16, 16)
    small, large = shrink(with_zeros, inputs).model, shrink(with_constants, inputs).model
    for name, layer in large.named_modules():
        if isinstance(layer, nn.Conv2d):
            least = small.get_submodule(name)
            assert layer.in_channels <= least.in_channels + 1
            assert layer.out_channels <= least.out_channels + 1


def test_dead_gammas_remove_the_filters_before_them() -> None:
    masked = mask(SmallResNet(1, 8), 0.0, seed=0, beta=True)
    with torch.no_grad():
        masked.blocks[0].bn1.weight[:5] = 0.0
        masked.blocks[0].bn1.bias[:5] = 0.0
    shrunk = shrink(masked, torch.zeros(1, 3, 16, 16)).model
    assert shrunk.get_submodule("blocks.0.conv1").out_channels == 3
    assert shrunk.get_submodule("blocks.0.conv2").in_channels == 3


@pytest.mark.parametrize(("name", "masks"), [(name, f"A{30 + 20 * (i % 3)}") for i, name in enumerate(IN_A)])
def test_outside_networks_are_minimal(name: str, masks: str) -> None:
    example = _example(name)
    masked = mask_outside(build(name), example, masks)
    least, shrunk = minimum(masked, example), shrink(masked, example, additions="gather")
    assert shrunk.report.params_after <= 1.001 * least.params
    assert count(shrunk.model, example).macs <= 1.001 * least.macs


@pytest.mark.parametrize(
    ("name", "masks"), [(name, "B50") for name in OUTSIDE] + [("mobilenet_v2", "l1"), ("densenet121", "l1")]
)
def test_constants_cost_at_most_a_carrier_a_layer(name: str, masks: str) -> None:
    example = _example(name)
    masked = mask_outside(build(name), example, masks)
    least = minimum(with_constants_alive(masked, example), example)
    shrunk = shrink(masked, example, additions="gather")
    assert shrunk.report.params_after <= 1.001 * least.params + least.carrier_params
    assert count(shrunk.model, example).macs <= 1.001 * least.macs + least.carrier_macs


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "seresnet18", "shufflenet_v2_x1_0"])
def test_gates_and_shuffles_leave_no_number_where_it_can_be_folded(name: str) -> None:
    example = _example(name)
    shrunk = shrink(mask_outside(build(name), example, "B50"), example, additions="gather").model
    for layer, numbers in _numbers_read(_never_saturated(shrunk), example):
        if isinstance(layer, nn.Linear) or layer.groups == 1:
            bordered = isinstance(layer, nn.Conv2d) and any(layer.padding)
            assert numbers <= int(bordered)  # one for all, where a zero border is seen


def _never_saturated(model: nn.Module) -> nn.Module:
    """With a activation that nowhere stays the same: what is a number for all images then is one by structure."""
    smooth = {nn.ReLU: nn.LeakyReLU, nn.ReLU6: nn.LeakyReLU, nn.Hardswish: nn.SiLU, nn.Hardsigmoid: nn.Sigmoid}
    for name, module in list(model.named_modules()):
        if type(module) in smooth:
            model.set_submodule(name, smooth[type(module)]())
    return model


@torch.no_grad()
def _numbers_read(model: nn.Module, example: torch.Tensor) -> list[tuple[nn.Module, int]]:
    """Each layer with how many of its input channels are one number, not 0, in all pixels of images of two sizes."""
    seen: dict[nn.Module, list[torch.Tensor]] = {}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda layer, given: seen.setdefault(layer, []).append(given[0]))
    for factor in (1, 2):
        model.double()(torch.randn(4, 3, *(side * factor for side in example.shape[2:]), dtype=torch.float64))
    found = []
    for layer, read in seen.items():
        channels = torch.cat([tensor.transpose(0, 1).flatten(1) for tensor in read], dim=1)
        spread = channels.amax(1) - channels.amin(1)
        found.append((layer, int(((spread <= 1e-12 * channels.abs().amax(1)) & channels.any(1)).sum())))
    return found


def _example(name: str) -> torch.Tensor:
    """Small images: a kernel counts as a whole, so connections do not depend on their size."""
    side = NETWORKS[name].size[0]
    return torch.zeros(1, 3, *[side if side > 64 else 32] * 2)
