"""A few convolutions and one expression, for the tests of the shrinker's operators: start with `check`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import Shrunk, shrink

LAYERS = nn.Conv2d | nn.Linear


@torch.fx.wrap
def stochastic_depth(x: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """Named as torchvision's, which is not traced into."""
    if training:
        raise AssertionError((p, mode))
    return x


class Net(nn.Module):
    """Layers by name, and an expression of them and of the input x [N, 3, H, W]."""

    def __init__(self, expression: str, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.names, self.code = tuple(layers), compile(expression.strip(), "<expression>", "eval")

    def forward(self, x: Tensor) -> Tensor:
        names = {name: getattr(self, name) for name in self.names}
        known = {
            "F": F,
            "torch": torch,
            "stochastic_depth": stochastic_depth,
            "len_": lambda y: y.size(0),
            "list_": lambda s: [s[i] for i in range(4)],
        }
        return eval(self.code, names | {"x": x} | known)  # noqa: S307 - written in this file


@torch.no_grad()
def masked(net: nn.Module, dead: Mapping[str, list[int]], *, biases: bool = True) -> nn.Module:
    """In double and eval, random numbers everywhere, and the listed filters zeroed, with their biases or without."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.5)
    for name, filters in dead.items():
        layer = net.get_submodule(name)
        layer.weight[filters] = 0.0
        if not biases:
            layer.bias[filters] = 0.0
    return net.double().eval()


def check(
    net: nn.Module, widths: Mapping[str, tuple[int, int]], sizes: tuple[int, ...] = (8, 11), unknown: int = 0
) -> Shrunk:
    """Shrink; compare at batch 1 and 2 and other image sizes; compare (inputs, outputs) of layers."""
    generator = torch.Generator().manual_seed(1)
    result = shrink(net, torch.randn(1, 3, sizes[0], sizes[0], generator=generator, dtype=torch.float64))
    for batch, size in [(1, sizes[0]), *[(2, size) for size in sizes]]:
        image = torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            expected, actual = net(image), result.model(image)
        assert actual.shape == expected.shape
        assert float((expected - actual).abs().max()) <= 1e-10 * max(float(expected.abs().max()), 1e-30)
    assert len(result.report.unknown) == unknown, result.report.unknown
    found = {}
    for name in widths:
        layer = result.model.get_submodule(name)
        found[name] = (layer.weight.shape[1] * getattr(layer, "groups", 1), layer.weight.shape[0])
    assert found == dict(widths)
    return result


def conv(inputs: int, outputs: int, kernel: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


BLOCK = "last((lambda y: y + ({block}).permute(0, 3, 1, 2))(a(x)))"

SQUEEZE = """
(lambda y: last(y * torch.sigmoid(up(F.relu(down(F.adaptive_avg_pool2d(y, 1)))))))(a(x))
"""


def squeeze_and_excitation(expression: str = SQUEEZE) -> Net:
    """A convolution whose channels are gated by two layers on their means."""
    return Net(expression, a=conv(3, 8, 3), down=conv(8, 4), up=conv(4, 8), last=conv(8, 2))
