"""Every operator the shrinker knows: the same numbers, nothing unknown, and the widths that its rule promises.

Start with `check`. Each network is a few convolutions and one expression; `dead` filters are zero, their biases stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
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
        known = {"F": F, "torch": torch, "stochastic_depth": stochastic_depth}
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


SQUEEZE = """
(lambda y: last(y * torch.sigmoid(up(F.relu(down(F.adaptive_avg_pool2d(y, 1)))))))(a(x))
"""


def squeeze_and_excitation(expression: str = SQUEEZE) -> Net:
    return Net(expression, a=conv(3, 8, 3), down=conv(8, 4), up=conv(4, 8), last=conv(8, 2))


@pytest.mark.parametrize("product", ["y * g", "g.mul(y)", "torch.mul(g, y)", "y.mul_(g)"])
def test_a_gate_follows_what_it_gates(product: str) -> None:
    net = masked(squeeze_and_excitation(
        f"(lambda y: (lambda g: last({product}))(torch.sigmoid(up(F.relu(down(F.adaptive_avg_pool2d(y, 1)))))))(a(x))"
    ), {"a": [0, 3, 4], "down": [1], "last": []}, biases=False)  # fmt: skip
    check(net, {"a": (3, 5), "down": (5, 3), "up": (3, 5), "last": (5, 2)})


def test_constant_channels_of_a_gate_and_of_what_it_gates() -> None:
    net = masked(squeeze_and_excitation(), {"a": [0, 3, 4], "up": [2, 3], "down": [1]})
    # channel 3 is a constant of both, 0 and 4 a constant times a gate, 2 a gate that is a number
    check(net, {"a": (3, 5), "down": (5, 3), "up": (3, 6), "last": (7, 2)})


def test_a_gate_that_is_one_number_a_channel_becomes_a_buffer() -> None:
    net = masked(squeeze_and_excitation(), {"a": [1], "up": list(range(8))})
    shrunk = check(net, {"a": (3, 7), "last": (7, 2)}).model
    assert not [name for name, _ in shrunk.named_parameters() if name.startswith(("up", "down"))]


def test_an_image_that_is_one_number_a_channel_still_gives_its_size() -> None:
    net = masked(squeeze_and_excitation("last(a(x) * F.adaptive_avg_pool2d(up(x), 1))"), {"a": list(range(8))})
    net.up = conv(3, 8).double()
    check(net, {"up": (3, 8), "last": (8, 2)})


TWO_IMAGES = ["a(x) * b(x)", "a(x) - b(x)", "a(x) / (b(x).square() + 1)", "torch.maximum(a(x), b(x))",
              "torch.add(a(x), b(x), alpha=0.3)", "a(x).sub_(b(x))"]  # fmt: skip


@pytest.mark.parametrize("expression", TWO_IMAGES)
def test_functions_of_two_images(expression: str) -> None:
    net = masked(Net(f"last({expression})", a=conv(3, 6, 3), b=conv(3, 6), last=conv(6, 2)), {
        "a": [0, 1, 2], "b": [1, 2, 3]
    })  # fmt: skip
    check(net, {"a": (3, 3), "b": (3, 3), "last": (4, 2)})


@pytest.mark.parametrize("expression", ["a(x) * b(x)", "b(x) * a(x)", "a(x) + b(x)", "b(x) - a(x)"])
@pytest.mark.parametrize("cut", [False, True])
def test_one_channel_serves_all(expression: str, cut: bool) -> None:
    net = masked(Net(f"last({expression})", a=conv(3, 6, 3), b=conv(3, 1), last=conv(6, 2)), {
        "a": [0, 2], "b": [0] if cut else []
    })  # fmt: skip
    check(net, {"a": (3, 4), "last": (4 if cut else 6, 2)})


def test_a_branch_dropout_that_sleeps() -> None:
    net = masked(Net("last(stochastic_depth(a(x), 0.2, 'row', False))", a=conv(3, 6), last=conv(6, 2)), {"a": [0, 2]})
    check(net, {"a": (3, 4), "last": (4, 2)})
