"""A layer that is called several times keeps what any of its calls needs, and no more."""

from __future__ import annotations

import pytest
import torch
from operator_networks import Net, check, conv, masked
from torch import nn

from edgeprune.counting import count
from edgeprune.shrinking import shrink
from edgeprune.shrinking.minimum import minimum

AB = {"a": [0, 1, 2], "b": [0, 1, 4]}

# the expression, the layer that is called twice, the width of the last layer's input, what is masked
CASES: dict[str, tuple[str, nn.Module, int, dict[str, list[int]]]] = {
    "in a row": ("t(F.relu(t(a(x))))", conv(8, 8, 3), 8, {"a": [0, 1, 2], "t": [0, 3, 4]}),
    "pointwise in a row": ("t(F.relu(t(a(x))))", conv(8, 8), 8, {"a": [0, 1, 2], "t": [0, 3, 4]}),
    "side by side": ("t(a(x)) + t(b(x))", conv(8, 8, 3), 8, AB | {"t": [3, 4]}),
    "different parts": ("t(a(x))[:, :4] * t(b(x))[:, 2:6]", conv(8, 8, 3), 4, AB | {"t": [3]}),
    "transposed": ("t(a(x)) + t(b(x))", nn.ConvTranspose2d(8, 8, 3, padding=1), 8, AB),
    "grouped": ("t(a(x)) + t(b(x))", conv(8, 8, 3, groups=4), 8, AB | {"t": [0, 1, 3, 6]}),
    "depthwise": ("t(a(x)) + F.relu(t(b(x)))", conv(8, 8, 3, groups=8), 8, AB | {"t": [0, 1, 7]}),
    "batch normalisation": ("torch.cat([t(a(x)), t(b(x))], 1)", nn.BatchNorm2d(8), 16, AB),
    "instance normalisation": ("torch.cat([t(a(x)), t(b(x))], 1)", nn.InstanceNorm2d(8, affine=True), 16, AB),
    "group normalisation": ("torch.cat([t(a(x)), t(b(x))], 1)", nn.GroupNorm(2, 8), 16, AB),
    "slopes": ("torch.cat([t(a(x)), t(b(x))], 1)", nn.PReLU(8), 16, AB),
    "one slope": ("torch.cat([t(a(x)), t(b(x)[:, :6])], 1)", nn.PReLU(), 14, AB),
}  # fmt: skip


def twice(case: str, *, biases: bool) -> nn.Module:
    expression, layer, width, dead = CASES[case]
    net = Net(f"last({expression})", a=conv(3, 8, 3), b=conv(3, 8), t=layer, last=conv(width, 2, 3))
    net = masked(net, dead, biases=biases)
    if not biases and isinstance(layer, nn.BatchNorm2d):
        layer.bias.data.zero_()
    return net


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("biases", [False, True], ids=["A", "B"])
def test_layers_called_twice_give_the_same_numbers(case: str, biases: bool) -> None:
    check(twice(case, biases=biases), {})


@pytest.mark.parametrize("case", [case for case in CASES if "normalisation" not in case or "batch" in case])
def test_layers_called_twice_are_minimal(case: str) -> None:
    net, example = twice(case, biases=False), torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    least, shrunk = minimum(net, example), shrink(net, example, additions="gather")
    assert shrunk.report.params_after == least.params
    assert count(shrunk.model, example).macs == least.macs


def test_a_number_that_all_calls_agree_on_goes_into_the_bias() -> None:
    net = Net("last(t(torch.sigmoid(a(x))) + t(torch.sigmoid(b(x))))", a=conv(3, 8, 3), b=conv(3, 8), t=conv(8, 8),
              last=conv(8, 2, 3))  # fmt: skip
    net = masked(net, {"a": [0, 1, 2], "b": [0, 1, 4]}, biases=False)
    check(net, {"a": (3, 5), "b": (3, 5), "t": (6, 8)})
    with torch.no_grad():
        net.a.bias[1] = 0.3  # now the calls give it two numbers
    check(net, {"a": (3, 5), "b": (3, 5), "t": (7, 8)})


def test_rows_that_only_one_call_needs_ask_for_nothing_at_the_other() -> None:
    net = Net("left(t(a(x))[:, :4]) + right(t(b(x))[:, 4:])", a=conv(3, 8, 3), b=conv(3, 8), t=conv(8, 8),
              left=conv(4, 2), right=conv(4, 2))  # fmt: skip
    net = masked(net, {})
    with torch.no_grad():
        net.t.weight[:4, 4:] = net.t.weight[4:, :4] = 0.0
    check(net, {"a": (3, 4), "b": (3, 4), "t": (8, 8)})
