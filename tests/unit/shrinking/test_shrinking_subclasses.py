"""Layers of the user's own classes, functional calls and hooks: what computes a layer shrinks, the rest stays whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ShrinkError
from edgeprune.shrinking import load_shrunk, shrink

IMAGES = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Conv(nn.Conv2d):
    """A convolution of the user's own, with a note on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.note = "mine"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.note}"


class Norm(nn.BatchNorm2d):
    pass


class Dense(nn.Linear):
    pass


class NormAct(nn.BatchNorm2d):
    """A normalisation with its activation inside, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(x)


class Scaled(nn.Conv2d):
    """A convolution that computes something else."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 2.0 * F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Functional(nn.Module):
    """Parameters of a layer that its forward hands to a function."""

    def __init__(self, call: str, *shape: int) -> None:
        super().__init__()
        outputs = shape[1] if call == "transposed" else shape[0]
        self.weight, self.bias = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(outputs))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        if self.call == "conv":
            return F.conv2d(x, self.weight, self.bias, padding=1)
        if self.call == "transposed":
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2)
        if self.call == "linear":
            return F.linear(x, self.weight, bias=self.bias)
        if self.call == "group":
            return F.group_norm(x, 8, self.weight, self.bias)
        if self.call == "instance":
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        return F.layer_norm(x, [8], self.weight, self.bias)


@torch.no_grad()
def masked(net: nn.Module) -> nn.Module:
    """In double and eval, random numbers, and five of eight filters zeroed in each convolution with eight."""
    torch.manual_seed(0)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
            if tensor.dim() == 4 and tensor.shape[0] == 8:
                tensor[:5] = 0.0
    return net.double().eval()


def classifier(conv: type[nn.Conv2d], norm: type[nn.Module], linear: type[nn.Linear]) -> nn.Sequential:
    """Two blocks and a linear layer."""
    blocks = [conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 8, 3), norm(8), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(8, 4))


def must_equal(net: nn.Module, shrunk: nn.Module) -> None:
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1, :, :7, :8]):
            torch.testing.assert_close(shrunk(images), net(images), rtol=1e-10, atol=1e-10)


def test_subclasses_shrink_as_the_layers_that_they_are(tmp_path: Path) -> None:
    net = masked(classifier(Conv, Norm, Dense))
    plain = classifier(nn.Conv2d, nn.BatchNorm2d, nn.Linear).double().eval()
    plain.load_state_dict(net.state_dict())
    result, expected = shrink(net, IMAGES), shrink(plain, IMAGES)
    must_equal(net, result.model)
    assert not result.report.unknown
    assert result.report.params_after == expected.report.params_after < result.report.params_before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.save(tmp_path / "net")
    must_equal(net, load_shrunk(tmp_path / "net"))
    assert type(net[0]) is Conv, "the user's model is left as it is"


def test_a_normalisation_with_its_activation_shrinks() -> None:
    net = masked(classifier(Conv, NormAct, Dense))
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    assert not result.report.unknown
    assert result.model.get_submodule("0").out_channels <= 4
    assert result.model.state_dict().keys() <= net.state_dict().keys()


def test_a_subclass_that_computes_something_else_is_followed() -> None:
    net = masked(classifier(Scaled, nn.BatchNorm2d, nn.Linear))
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    assert result.model.get_submodule("0").out_channels <= 4


@pytest.mark.parametrize("call", ["conv", "transposed", "linear", "group", "instance", "layer"])
def test_functional_calls_shrink_as_layers(call: str) -> None:
    shape = {"conv": (6, 8, 3, 3), "transposed": (8, 6, 2, 2), "linear": (6, 8)}.get(call, (8,))
    middle: list[nn.Module] = [Functional(call, *shape)]
    if call in ("linear", "layer"):
        middle = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *middle]
    net = masked(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *middle))
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    assert not result.report.unknown
    assert f"{1 + len(middle)}.weight" in result.model.state_dict()
    if call in ("conv", "transposed", "linear"):
        assert result.model.get_submodule("0").out_channels <= 4


def test_weights_that_something_else_reads_stay_whole() -> None:
    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), Functional("conv", 6, 8, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)) + self.second.weight.sum()

    net = masked(Regularised())
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    assert any("conv2d" in name for name in result.report.unknown)


def test_hooked_and_patched_modules_are_not_taken_for_their_class() -> None:
    for place in (2, 7, 8):
        net = masked(classifier(nn.Conv2d, nn.BatchNorm2d, nn.Linear))
        net[place].register_forward_hook(lambda _module, _inputs, output: output * 3.0)
        must_equal(net, shrink(net, IMAGES).model)
    for place in (2, 3, 4):
        net = masked(classifier(nn.Conv2d, nn.BatchNorm2d, nn.Linear))
        before = net[place].forward
        net[place].forward = lambda x, before=before: before(x).sin()
        must_equal(net, shrink(net, IMAGES).model)


def test_hooks_of_the_model_itself_are_told() -> None:
    net = masked(classifier(nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    seen: list[int] = []
    handle = net.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    assert any("hooks" in note for note in shrink(net, IMAGES).report.notes)
    handle.remove()
    net.register_forward_hook(lambda _module, _inputs, output: output * 3.0)
    with pytest.raises(ShrinkError) as raised:
        shrink(net, IMAGES)
    assert "hooks" in str(raised.value.hint)
