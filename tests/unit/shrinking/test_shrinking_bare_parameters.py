"""Functional calls on bare parameters of any name shrink as the layers that they compute, and keep their names."""

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

IMAGES = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


class Bare(nn.Module):
    """Every functional call that `layers` knows, on parameters and buffers of the network itself."""

    def __init__(self, *, exported: bool) -> None:
        super().__init__()
        self.w, self.b, self.scale, self.shift, self.slopes = weights(8, 3, 3, 3), *(weights(8) for _ in range(4))
        self.register_buffer("mean", torch.empty(8))
        self.register_buffer("var", torch.empty(8))
        self.kernels = nn.ParameterList([weights(8, 8, 3, 3), weights(8, 8, 1, 1), weights(8, 1, 3, 3)])
        self.named = nn.ParameterDict({"up": weights(8, 6, 2, 2), "classes": weights(5, 6), "scale": weights(6)})
        self.norm_scale, self.norm_shift = weights(6), weights(6)
        self.exported = exported

    def forward(self, x: Tensor) -> Tensor:
        if self.exported and x.shape[0] > 64:  # torch.fx can not follow this
            x = x + 1.0
        x = F.batch_norm(F.conv2d(x, self.w, self.b, padding=1), self.mean, self.var, self.scale, self.shift)
        x = F.prelu(x, self.slopes)
        x = F.conv2d(F.conv2d(x, self.kernels[0], padding=1).relu(), self.kernels[1])
        x = F.conv2d(x, self.kernels[2], groups=8, stride=2)
        x = F.conv_transpose2d(x, self.named["up"], stride=2)
        x = F.instance_norm(x, weight=self.norm_scale, bias=self.norm_shift)
        return F.linear(F.layer_norm(x.relu().mean((2, 3)), [6], self.named["scale"]), weight=self.named["classes"])


def layers() -> nn.Sequential:
    """What `Bare` computes, of layers, with its parameters in the same order."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8)),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 1, bias=False)),
        nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False)),
        nn.Sequential(nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), nn.InstanceNorm2d(6, affine=True)),
        nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(6, bias=False)),
        nn.Linear(6, 5, bias=False),
    ).double()


@torch.no_grad()
def masked(net: nn.Module) -> nn.Module:
    """In double and eval, random numbers, and three of eight filters zeroed in each kernel with eight."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        tensor.copy_(
            torch.randn(tensor.shape, generator=generator).abs() if "var" in name else torch.randn(tensor.shape)
        )
        if tensor.dim() == 4 and tensor.shape[0] == 8:
            tensor[torch.randperm(8, generator=generator)[:3]] = 0.0
    return net.double().eval()


@pytest.fixture(scope="module", params=[False, True], ids=["fx", "export"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Shrunk]:
    net = masked(Bare(exported=request.param))
    return net, shrink(net, IMAGES)


def must_equal(net: nn.Module, shrunk: nn.Module) -> None:
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1, :, :7, :8]):
            torch.testing.assert_close(shrunk(images), net(images), rtol=1e-10, atol=1e-10)


def test_as_small_as_the_same_network_of_layers(pair: tuple[nn.Module, Shrunk]) -> None:
    net, result = pair
    must_equal(net, result.model)
    assert not result.report.unknown
    same, state = layers(), net.state_dict()
    order = ["w", "b", "scale", "shift", "mean", "var", "slopes", *(f"kernels.{place}" for place in range(3))]
    order += ["named.up", "norm_scale", "norm_shift", "named.scale", "named.classes"]
    keys = [key for key in same.state_dict() if "num_batches" not in key]
    same.load_state_dict({key: state[name] for key, name in zip(keys, order, strict=True)}, strict=False)
    expected = shrink(same.eval(), IMAGES).report
    must_equal(net, same)
    assert result.report.params_after == expected.params_after < expected.params_before
    widths = [[(row.op, row.in_after, row.out_after) for row in one.layers] for one in (result.report, expected)]
    assert widths[0] == widths[1]


def test_names_stay_and_new_biases_stand_beside_their_weights(pair: tuple[nn.Module, Shrunk]) -> None:
    net, result = pair
    new = result.model.state_dict().keys() - net.state_dict().keys()
    assert all(name.removesuffix("_bias") in net.state_dict() for name in new)
    assert net.state_dict().keys() <= result.model.state_dict().keys()
    again = shrink(result.model, IMAGES)
    must_equal(net, again.model)
    assert again.report.params_after == result.report.params_after


def test_trains_and_is_saved(pair: tuple[nn.Module, Shrunk], tmp_path: Path) -> None:
    net, result = pair
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.save(tmp_path / "net")
    must_equal(net, load_shrunk(tmp_path / "net"))
    model = copy.deepcopy(result.model).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(IMAGES), torch.tensor([1, 2])).backward()
    optimiser.step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_exports_to_onnx(pair: tuple[nn.Module, Shrunk], tmp_path: Path, dynamo: bool) -> None:
    model, images = copy.deepcopy(pair[1].model).float(), IMAGES.float()
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), str(path), dynamo=dynamo, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


class Gained(nn.Module):
    """A layer's names, and a parameter that no such layer has."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.first, self.weight, self.bias, self.gain = nn.Conv2d(3, 8, 3), weights(8, 8, 3, 3), weights(8), weights(8)
        self.last, self.use = nn.Conv2d(8, 4, 1), use

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.use == "gain":
            x = F.conv2d(x, self.weight, self.bias) * self.gain.reshape(1, 8, 1, 1)
        elif self.use == "other biases":
            x = F.conv2d(x, self.weight, self.bias) + F.conv2d(x, self.weight, self.gain)
        elif self.use == "read":
            x = F.conv2d(x, self.weight, self.bias) + self.bias.sum()
        else:
            x = F.conv2d(x, self.weight) + self.bias.reshape(1, 8, 1, 1)
        return self.last(x)


@pytest.mark.parametrize("nested", [False, True], ids=["root", "inside"])
@pytest.mark.parametrize("use", ["gain", "other biases", "read", "own bias"])
def test_parameters_beside_a_layers(use: str, *, nested: bool) -> None:
    net = masked(nn.Sequential(Gained(use)) if nested else Gained(use))
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    prefix = "0." if nested else ""
    narrow = result.model.get_parameter(f"{prefix}weight").shape[0] < 8
    assert narrow == (use in ("gain", "own bias"))
    assert bool(result.report.unknown) == (use in ("other biases", "read"))


def test_groups_of_unequal_size_stand_under_the_weights_name() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.grouped, self.last = weights(8, 3, 3, 3), weights(12, 2, 3, 3), weights(4, 12, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.conv2d(x, self.w).relu()
            return F.conv2d(F.conv2d(x, self.grouped, groups=4).relu(), self.last)

    net = masked(Grouped())
    with torch.no_grad():
        net.grouped[[0, 5, 6, 7, 8]] = 0.0
    result = shrink(net, IMAGES)
    must_equal(net, result.model)
    assert {name.partition(".")[0] for name in result.model.state_dict()} == {"w", "grouped", "last"}
    assert not result.report.unknown
    assert all(row.params_after for row in result.report.layers)
