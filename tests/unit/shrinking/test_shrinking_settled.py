"""Where only numbers are left, no layer computes them: their sizes follow from the input's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from masked_networks import SmallResNet, mask
from operator_networks import Net, check, conv, masked
from torch import nn

from edgeprune.counting import count
from edgeprune.exporting import check_parity, export_onnx
from edgeprune.shrinking import load_shrunk, shrink

# the last of them gives images of numbers alone, of each layer's own size
IMAGES: dict[str, nn.Module] = {
    "strided": nn.Conv2d(8, 4, 3, 2, 1), "wide": nn.Conv2d(8, 4, (1, 5), (3, 2), (2, 0)), "same": nn.Conv2d(8, 4, 4,
    padding="same"), "dilated": nn.Conv2d(8, 4, 3, 2, 1, dilation=2), "valid": nn.Conv2d(8, 4, 3, padding="valid"),
    "grouped": nn.Conv2d(8, 4, 3, 2, groups=4), "replicated": nn.Conv2d(8, 4, 3, 1, 2, padding_mode="replicate"),
    "transposed": nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
    "dilated transposed": nn.ConvTranspose2d(8, 4, 3, 3, 2, dilation=2), "batch normalisation": nn.BatchNorm2d(8),
    "slopes": nn.PReLU(8), "group normalisation": nn.GroupNorm(2, 8),
}  # fmt: skip


def cut(net: nn.Module, *names: str) -> nn.Module:
    net = masked(net, {})
    with torch.no_grad():
        for name in names:
            net.get_submodule(name).weight.zero_()
    return net


@pytest.mark.parametrize("layer", list(IMAGES))
def test_an_image_of_numbers_has_the_sizes_that_its_layer_gives(layer: str) -> None:
    result = check(cut(Net("b(a(x))", a=conv(3, 8, 3), b=IMAGES[layer]), "a", "b"), {}, sizes=(8, 13))
    assert result.report.params_after == 0
    assert count(result.model, torch.zeros(1, 3, 8, 8, dtype=torch.float64)).macs == 0


@pytest.mark.parametrize("told", ["x.shape[-2:]", "output_size=x.shape[-2:]"])
@pytest.mark.parametrize("gone", [True, False], ids=["cut", "there"])
def test_a_transposed_convolution_is_told_its_sizes(told: str, gone: bool) -> None:
    net = Net(f"last(torch.cat([x, up(down(x), {told})], 1))", down=nn.Conv2d(3, 4, 3, 2, 1),
              up=nn.ConvTranspose2d(4, 5, 3, 2, 1), last=conv(8, 3, 3))  # fmt: skip
    net = cut(net, "up") if gone else masked(net, {"down": [1]})
    check(net, {"last": (4 if gone else 8, 3)}, sizes=(8, 11))


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
def test_of_classes_that_are_numbers_the_batch_alone_is_left(shortcut: str, beta: bool, tmp_path: Path) -> None:
    network = mask(SmallResNet(shortcut=shortcut), 0.3, seed=5, beta=beta)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.zero_()
    result = shrink(network, torch.zeros(1, 3, 16, 16))
    assert {name for name, _ in result.model.named_children()} == {"fc_constant"}
    result.save(tmp_path / "net")
    again = shrink(result.model, torch.zeros(1, 3, 16, 16))
    assert again.report.unknown == ()
    for model in (result.model, load_shrunk(tmp_path / "net"), again.model):
        for batch, size in ((1, 16), (2, 16), (2, 9)):
            image = torch.randn(batch, 3, size, size)
            assert torch.equal(model(image), network(image))
    export_onnx(result.model, torch.zeros(2, 3, 16, 16), tmp_path / "net.onnx")
    check_parity(result.model, tmp_path / "net.onnx", torch.randn(2, 3, 16, 16))


def test_a_cut_branch_beside_a_living_one_is_no_layer() -> None:
    net = Net("last(torch.cat([a(x), norm(c(F.relu(b(x))))], 1))", a=conv(3, 4, 3), b=conv(3, 6, 3), c=conv(6, 8, 3),
              norm=nn.BatchNorm2d(8), last=conv(12, 2, 3))  # fmt: skip
    result = check(cut(net, "b", "c"), {"a": (3, 4), "last": (5, 2)})  # one number stands for all before the border
    layers = [
        name
        for name, module in result.model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    assert layers == ["a", "last"]


def test_the_batch_is_not_taken_from_an_input_that_has_another() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(y)

    net = cut(Two(), "a", "b")
    shrunk = shrink(net, (torch.zeros(2, 4).double(), torch.zeros(2, 4).double())).model
    given = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    for expected, actual in zip(net(*given), shrunk(*given), strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize(
    "way", ["x.flatten(2).mean(2).reshape(-1, 1)", "x.mean((2, 3))[None][:, 0]", "torch.cat([x, x], 0).mean((2, 3))",
            "x.permute(1, 0, 2, 3).mean((2, 3))"]
)  # fmt: skip
def test_a_batch_that_is_not_the_inputs_is_told_by_what_made_it(way: str) -> None:
    width = {"x.f": 1, "x.p": 1}.get(way[:3], 3)
    net = cut(Net(f"a({way})", a=nn.Linear(width, 2)), "a")
    shrunk = shrink(net, torch.zeros(1, 3, 8, 8, dtype=torch.float64)).model
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(shrunk(image), net(image))
