"""Weights that forward reads by name: beside a call of their layer, for their size, or as a layer's without a layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import Shrunk, shrink

IMAGES = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Three(nn.Module):
    """Three convolutions; `read` says what else forward makes of the weights of the middle one."""

    def __init__(self, read: str = "", *, exported: bool = False) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(8)
        self.read, self.exported = read, exported

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.exported and x.shape[0] > 64:  # torch.fx can not follow this
            x = x + 1.0
        x = self.first(x)
        y = self.middle(x)
        if self.read == "call":
            y = y + F.conv2d(x, self.middle.weight)
        elif self.read == "same call":
            y = y + F.conv2d(x.relu(), self.middle.weight, self.middle.bias)
        elif self.read == "bias":
            y = y * self.middle.bias.reshape(1, 8, 1, 1)
        elif self.read == "size":
            y = y * self.middle.weight.shape[0] + self.middle.weight.size(1) / self.middle.weight.numel()
        normed = self.norm(y).relu()
        y = self.last(normed)
        if self.read == "type":
            y = y.to(self.middle.weight.dtype)
        elif self.read == "output":
            return y, self.middle.weight.abs().sum()
        elif self.read == "statistics":
            return y, normed.mean((2, 3)) * self.norm.running_mean
        return (y,)


@torch.no_grad()
def masked(net: nn.Module) -> nn.Module:
    """In double and eval, random numbers, and three of eight filters zeroed in each convolution with eight."""
    torch.manual_seed(0)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
            if tensor.dim() == 4 and tensor.shape[0] == 8:
                tensor[:3] = 0.0
    return net.double().eval()


def shrunk_equal(net: nn.Module) -> Shrunk:
    """The network shrunk, and the same at two sizes."""
    result = shrink(net, IMAGES)
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1, :, :7, :8]):
            for actual, expected in zip(result.model(images), net(images), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    return result


@pytest.mark.parametrize("exported", [False, True], ids=["fx", "export"])
@pytest.mark.parametrize("read", ["call", "bias", "output", "statistics"])
def test_a_layer_whose_weights_are_also_read_stays_whole_and_the_report_says_so(read: str, *, exported: bool) -> None:
    net = masked(Three(read, exported=exported))
    result = shrunk_equal(net)
    state = result.model.state_dict()
    layer = "norm" if read == "statistics" else "middle"
    for name, tensor in net.state_dict().items():
        if name.startswith(layer) and name in state:
            assert torch.equal(state[name], tensor), name
    assert len(state) >= len(net.state_dict()) - 1, "all but the counter of batches"
    if not exported:
        assert any(layer in name for name in result.report.unknown)
        assert [note for note in result.report.notes if "read by name" in note and layer in note]


@pytest.mark.parametrize("exported", [False, True], ids=["fx", "export"])
@pytest.mark.parametrize("read", ["same call", "type", "size"])
def test_what_needs_no_whole_layer_keeps_none(read: str, *, exported: bool) -> None:
    result = shrunk_equal(masked(Three(read, exported=exported)))
    assert result.model.get_submodule("middle").out_channels < 8
    assert result.report.params_after < result.report.params_before
    assert not [note for note in result.report.notes if "read by name" in note]


def test_an_embedding_whose_weights_are_the_classifier() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.wide, self.narrow = nn.Embedding(10, 8), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            return F.linear(x + self.narrow(F.gelu(self.wide(x))), self.embed.weight)

    net, tokens = masked(Tied()), torch.tensor([[1, 2, 3], [9, 0, 5]])
    with torch.no_grad():
        net.wide.weight[:7] = 0.0
    result = shrink(net, (tokens,))
    with torch.no_grad():
        torch.testing.assert_close(result.model(tokens), net(tokens), rtol=1e-10, atol=1e-10)
    assert result.model.get_submodule("wide").out_features == 9
    assert torch.equal(result.model.get_parameter("embed.weight"), net.embed.weight)
