"""Parameters that modules share stay shared where the same is left of them; else the report names them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import Shrunk, load_shrunk, shrink

IMAGES = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Two branches with one weight, and the first layers' zero filters; a bare parameter may be the shared one."""

    def __init__(self, *, bare: bool = False) -> None:
        super().__init__()
        self.first, self.left, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.norms[1].weight = self.norms[0].weight
        self.bare = bare
        if bare:
            self.w = self.left.weight
        else:
            self.right = nn.Conv2d(8, 8, 1)
            self.right.weight = self.left.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        y = F.conv2d(x, self.w) if self.bare else self.right(x)
        return self.last((self.norms[0](self.left(x)) * self.norms[1](y)).relu())


@torch.no_grad()
def masked(net: nn.Module, *rows: int) -> nn.Module:
    """In double and eval, random numbers, and some zero filters in each convolution with eight."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_floating_point():
            numbers = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(numbers.abs() if "var" in name else numbers)
            if tensor.dim() == 4 and tensor.shape[0] == 8:
                tensor[list(rows)] = 0.0
    return net.double().eval()


def shrunk_equal(net: nn.Module) -> Shrunk:
    result = shrink(net, IMAGES)
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1, :, :7, :8]):
            torch.testing.assert_close(result.model(images), net(images), rtol=1e-10, atol=1e-10)
    return result


@pytest.mark.parametrize("rows", [(), (0, 2, 5)], ids=["whole", "cut"])
def test_branches_that_are_cut_alike_share_their_weight(rows: tuple[int, ...], tmp_path: Path) -> None:
    net = masked(Branches(), *rows)
    result = shrunk_equal(net)
    model, left = result.model, 8 - len(rows)
    assert model.get_parameter("left.weight") is model.get_parameter("right.weight")
    assert model.get_parameter("norms.0.weight") is model.get_parameter("norms.1.weight")
    assert model.get_parameter("first.weight").shape[0] == left
    assert not [note for note in result.report.notes if "train apart" in note]
    assert result.report.params_after == sum(parameter.numel() for parameter in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.save(tmp_path / "net")
    loaded = load_shrunk(tmp_path / "net")
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), model(IMAGES))
    twin = copy.deepcopy(model).train()
    twin(IMAGES).square().sum().backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert not torch.equal(twin.get_parameter("left.weight"), model.get_parameter("left.weight"))
    assert torch.equal(twin.get_parameter("left.weight"), twin.get_parameter("right.weight"))


@pytest.mark.parametrize("rows", [(), (1, 6)], ids=["whole", "cut"])
def test_a_bare_parameter_stays_the_layers(rows: tuple[int, ...]) -> None:
    result = shrunk_equal(masked(Branches(bare=True), *rows))
    assert result.model.get_parameter("left.weight") is result.model.get_parameter("w")
    assert result.model.get_parameter("w").shape[0] == 8 - len(rows)


@pytest.mark.parametrize("second", [(0, 1), (2, 3)], ids=["same channels", "others"])
def test_equal_numbers_of_other_channels_stay_apart(second: tuple[int, int]) -> None:
    blocks = [[nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)] for _ in range(2)]
    net = masked(nn.Sequential(*blocks[0], *blocks[1]))
    net[5].weight = net[1].weight
    with torch.no_grad():
        net[1].weight.fill_(1.0)
        for place, rows in ((0, (0, 1)), (4, second)):
            net[place].weight[list(rows)] = 0.0
    result = shrunk_equal(net)
    shared = result.model.get_parameter("1.weight") is result.model.get_parameter("5.weight")
    assert shared == (second == (0, 1))
    assert bool([note for note in result.report.notes if "train apart" in note]) != shared
    assert len(result.model.get_parameter("1.weight")) == 2


@pytest.mark.parametrize("rows", [(), (1, 6)], ids=["whole", "cut"])
def test_a_weight_that_is_also_read_stays_whole_and_shared(rows: tuple[int, ...]) -> None:
    class Read(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.left.weight.abs().mean()

    net = masked(Read(), *rows)
    result = shrunk_equal(net)
    assert result.model.get_parameter("left.weight") is result.model.get_parameter("right.weight")
    assert torch.equal(result.model.get_parameter("left.weight"), net.left.weight)
