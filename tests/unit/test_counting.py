"""Counting: MACs and parameters written out by hand, what is not counted is named, nothing changes."""

import gzip
import math
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from edgeprune import models
from edgeprune.counting import compressed_bytes, count
from edgeprune.errors import ModelError, StorageError


def resnet_macs(depth: int, size: int, in_channels: int, classes: int, projection: bool) -> int:
    """Output pixels times kernel times channels, over He et al. 2016, section 4.2."""
    blocks = (depth - 2) // 6
    total = size * size * in_channels * 16 * 9
    for before, width in ((16, 16), (16, 32), (32, 64)):
        size = math.ceil(size / 2) if before != width else size
        total += size * size * (before * width * 9 + (2 * blocks - 1) * width * width * 9)
        total += size * size * before * width if projection and before != width else 0
    return total + 64 * classes


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("size", [32, 27])
def test_resnet_macs(name: str, shortcut: str, size: int):
    model = models.build(name, shortcut=shortcut)
    found = count(model, torch.zeros(1, 3, size, size))
    assert found.macs == resnet_macs(int(name[6:]), size, 3, 10, shortcut == "projection")
    assert found.macs == sum(one.macs for one in found.layers)
    if size == 32 and name == "resnet56":
        assert round(found.macs / 1e9, 2) == 0.13  # as the papers say


def test_lenet5_layers_in_order():
    found = count(models.build("lenet5"), torch.zeros(1, 1, 28, 28))
    rows = [(one.layer, one.op, one.in_channels, one.out_channels, one.params, one.macs) for one in found.layers]
    assert rows == [
        ("conv1", "Conv2d", 1, 20, 520, 24 * 24 * 20 * 25),
        ("conv2", "Conv2d", 20, 50, 25_050, 8 * 8 * 50 * 20 * 25),
        ("fc1", "Linear", 800, 500, 400_500, 800 * 500),
        ("fc2", "Linear", 500, 10, 5_010, 5_000),
    ]
    assert found.macs == 2_293_000
    assert found.params == found.nonzero_params == 431_080
    assert found.uncounted_ops == {"aten::flatten": 1, "aten::max_pool2d": 2, "aten::relu": 3}


def test_everything_that_is_not_counted_is_named():
    found = count(models.build("resnet20", shortcut="pad"), torch.zeros(1, 3, 32, 32))
    assert found.uncounted_ops["aten::batch_norm"] == 19
    assert found.uncounted_ops["aten::add"] == 9
    assert found.uncounted_ops["aten::relu"] == 19
    assert found.uncounted_ops["aten::adaptive_avg_pool2d"] == 1
    assert found.uncounted_ops["aten::pad"] == 2
    assert 0 not in found.uncounted_ops.values()


class Products(nn.Module):
    """Matrix products and a layer called twice, in another order than they are declared."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(6, 4)
        self.twice = nn.Linear(6, 6, bias=False)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, bias=False)
        self.scale = nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.twice(self.twice(x))
        product = torch.bmm(x, x.transpose(1, 2)) * self.scale.sum()
        return self.late(x) + torch.matmul(product, product).mean(), self.grouped(image)


def test_products_shared_layers_groups_and_batches():
    found = count(Products(), (torch.zeros(2, 5, 6), torch.zeros(2, 4, 6, 6)))
    by_name = {one.layer: one.macs for one in found.layers}
    assert list(by_name) == ["twice", "late", "grouped"]
    assert by_name["twice"] == 2 * (2 * 5 * 6 * 6)
    assert by_name["late"] == 2 * 5 * 6 * 4
    assert by_name["grouped"] == 2 * (4 * 4) * 8 * 2 * 9
    assert found.macs == sum(by_name.values()) + 2 * 5 * 6 * 5 + 2 * 5 * 5 * 5
    assert found.params == 28 + 36 + 8 * 2 * 9 + 2
    assert found.nonzero_params == found.params - 1


def test_masked_weights_are_not_nonzero_and_the_model_is_untouched():
    model = models.build("resnet20", in_channels=1).train()
    with torch.no_grad():
        model.conv1.weight[:5] = 0
    before = {name: one.clone() for name, one in model.state_dict().items()}
    found = count(model, torch.randn(1, 1, 32, 32))
    zero_biases = sum(one.bias.numel() for one in model.modules() if isinstance(one, nn.BatchNorm2d))
    assert found.params - found.nonzero_params == 5 * 9 + zero_biases
    assert model.training
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert not model.conv1._forward_pre_hooks


def test_traced_modules_count_the_same(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    model = models.build("resnet20").eval()
    images = torch.zeros(1, 3, 32, 32)
    assert count(fx.symbolic_trace(model), images) == count(model, images)
    assert not caplog.records
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_inputs_that_do_not_fit():
    with pytest.raises(ModelError, match=r"ResNet.*\[1, 4, 32, 32\]") as caught:
        count(models.build("resnet20"), torch.zeros(1, 4, 32, 32))
    assert caught.value.hint


def test_compressed_bytes(tmp_path: Path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"\0" * 100_000)
    size = compressed_bytes(path)
    assert size < 200
    assert size == len(gzip.compress(b"\0" * 100_000, 9, mtime=0))
    with pytest.raises(StorageError, match="absent"):
        compressed_bytes(tmp_path / "absent")


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolutions_that_name_their_padding(padding: str):
    layer = nn.Conv2d(6, 8, (3, 4), padding=padding, groups=2)
    pixels = 9 * 11 if padding == "same" else 7 * 8
    assert count(layer, torch.zeros(1, 6, 9, 11)).macs == 8 * 3 * 12 * pixels


def without_columns(model: nn.Module, kept: float) -> nn.Module:
    """A network in which a share of the columns of each inner 3x3 convolution is left (PSP, section 4)."""
    random = torch.Generator().manual_seed(0)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and name != "conv1":
            layer.weight.data *= torch.rand(layer.weight[:1].shape, generator=random) < kept
    return model


def test_columns_count_as_in_the_papers_table():
    """Parameterized Structured Pruning, table 3: of ResNet-56 0.21M parameters and 0.03G MACs are left."""
    dense = count(models.build("resnet56", shortcut="pad"), torch.zeros(1, 3, 32, 32))
    assert (round(dense.params / 1e6, 2), round(dense.macs / 1e9, 2)) == (0.85, 0.13)
    assert dense.nonzero_macs == dense.macs
    masked = count(without_columns(models.build("resnet56", shortcut="pad"), 0.245), torch.zeros(1, 3, 32, 32))
    assert masked.macs == dense.macs
    assert round(masked.nonzero_params / 1e6, 2) == 0.21
    assert round(masked.nonzero_macs / 1e9, 2) == 0.03


def test_multiply_adds_by_zero_of_layers_of_all_kinds():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, 2, groups=2), nn.ConvTranspose2d(6, 5, 2), nn.Flatten(), nn.Linear(80, 3))
    model[0].weight.data[:, 1, 0] = 0.0
    model[1].weight.data[2] = 0.0
    model[3].weight.data[:, :20] = 0.0
    found = count(model, torch.zeros(1, 4, 7, 7))
    assert found.macs == 9 * 6 * 2 * 9 + 9 * 6 * 5 * 4 + 80 * 3
    assert found.macs - found.nonzero_macs == 9 * 6 * 3 + 9 * 5 * 4 + 20 * 3
