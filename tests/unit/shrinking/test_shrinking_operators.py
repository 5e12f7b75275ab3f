"""Operators channel by channel: the same numbers, nothing unknown, and the widths that each rule promises.

Each network is a few convolutions and one expression; `dead` filters are zero, their biases stay. Start with
`operator_networks.check`.
"""

from __future__ import annotations

import pytest
import torch
from operator_networks import BLOCK, Net, check, conv, masked, squeeze_and_excitation
from torch import nn

from edgeprune.shrinking import shrink


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


PARAMETERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "scale [C, 1, 1]": ("p * a(x)", (6, 1, 1)),
    "scale [1, C, 1, 1]": ("a(x).mul(p)", (1, 6, 1, 1)),
    "scale [C]": ("a(x) * p.view(1, -1, 1, 1)", (6,)),
    "scale [C], indexed": ("a(x) * p[None, :, None, None]", (6,)),
    "scale [C], last": ("(a(x).permute(0, 2, 3, 1) * p).permute(0, 3, 1, 2)", (6,)),
    "shift": ("a(x) + p", (1, 6, 1, 1)),
    "difference": ("p - a(x)", (6, 1, 1)),
    "quotient": ("a(x) / (p.square() + 1.0)", (6, 1, 1)),
    "activated": ("a(x) * torch.sigmoid(p)", (6, 1, 1)),
}


@pytest.mark.parametrize("case", list(PARAMETERS))
def test_bare_parameters_are_cut_with_the_channels(case: str) -> None:
    expression, shape = PARAMETERS[case]
    net = Net(f"last({expression})", a=conv(3, 6, 3), last=conv(6, 2, 3), p=nn.Parameter(torch.empty(shape)))
    net = masked(net, {"a": [0, 2]}, biases=False)
    with torch.no_grad():
        net.last.weight[:, [0, 2]] = 0.0
    shrunk = check(net, {"a": (3, 4), "last": (4, 2)}).model
    assert shrunk.get_parameter("p").shape == torch.Size(4 if size == 6 else size for size in shape)
    shrunk(torch.randn(1, 3, 8, 8, dtype=torch.float64)).sum().backward()
    assert shrunk.get_parameter("p").grad is not None


def test_zeros_of_a_bare_parameter_remove_channels() -> None:
    net = Net("last(a(x) * p)", a=conv(3, 6, 3), last=conv(6, 2, 3), p=nn.Parameter(torch.empty(6, 1, 1)))
    net = masked(net, {"a": [0]})
    with torch.no_grad():
        net.p[[2, 3, 4]] = 0.0
    # channel 0 is a constant in front of a zero border
    check(net, {"a": (3, 2), "last": (3, 2)})


def test_scalar_parameters() -> None:
    net = Net("last(a(x) * p + q)", a=conv(3, 6, 3), last=conv(6, 2), p=nn.Parameter(torch.empty(())),
              q=nn.Parameter(torch.empty(1)))  # fmt: skip
    check(masked(net, {"a": [0, 2]}, biases=False), {"a": (3, 4)})


def test_a_parameter_that_is_read_twice_stays_whole() -> None:
    net = Net("last(torch.cat([a(x) * p, b(x) * p], 1))", a=conv(3, 6), b=conv(3, 6), last=conv(12, 2),
              p=nn.Parameter(torch.empty(6, 1, 1)))  # fmt: skip
    check(masked(net, {"a": [0], "b": [1, 2]}), {"a": (3, 5), "b": (3, 4)})


VIEWS = [
    "a(x).permute(0, 2, 3, 1).permute(0, 3, 1, 2)", "a(x).transpose(1, -1).transpose(-1, 1)",
    "torch.permute(a(x), (0, 2, 1, 3))[:, None].squeeze(1).transpose(1, 2)", "a(x).unsqueeze(-1).squeeze(4)",
    "a(x).flatten(2)[..., None]", "a(x).view(x.size(0), 6, -1).unsqueeze(3)", "a(x).unsqueeze(1).squeeze(1)",
    "(lambda y: y.view(y.shape[0], y.shape[1], y.shape[2] * y.shape[3], 1))(a(x))",
    "(lambda y: y.reshape(y.size(0), y.size(1), -1, 1))(a(x))", "torch.flatten(a(x), 2).transpose(1, 2).mT[..., None]",
    "(lambda y: y.permute(0, 2, 3, 1).reshape(-1, 6).view(len_(y), y.size(2), -1, 6).permute(0, 3, 1, 2))(a(x))",
    "F.adaptive_avg_pool2d(a(x), 1).expand(-1, 6, 5, 5)", "F.adaptive_avg_pool2d(a(x), 1).expand_as(a(x))",
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_views_that_leave_the_channels_whole(view: str) -> None:
    net = masked(Net(f"last({view})", a=conv(3, 6, 3), last=conv(6, 2)), {"a": [0, 4]})
    unknown = sum(word in view for word in ("expand_as", ".mT"))
    check(net, {"a": (3, 6 if unknown else 4), "last": (6 if unknown else 4, 2)}, unknown=unknown)


def test_a_view_that_tells_a_batch_of_one_is_left_alone() -> None:
    net = masked(Net("last(a(x).view(1, 6, -1, 1))", a=conv(3, 6, 3), last=conv(6, 2)), {"a": [0, 4]})
    result = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(net(image), result.model(image), rtol=0.0, atol=1e-12)


def test_arithmetic_on_the_number_of_channels_stays_what_it_was() -> None:
    net = masked(Net("last(a(x) * a(x).shape[1] ** -0.5)", a=conv(3, 6, 3), last=conv(6, 2)), {"a": [0, 4]})
    check(net, {"last": (6, 2)}, unknown=1)
    net = masked(Net("last(a(x)) / b(x).size(1)", a=conv(3, 6), b=conv(3, 6), last=conv(6, 2)), {"a": [0], "b": [1]})
    check(net, {"a": (3, 5), "last": (5, 2)}, unknown=1)


@pytest.mark.parametrize("norm", ["norm(y.permute(0, 2, 3, 1))", "F.layer_norm(y.permute(0, 2, 3, 1), (6,), g, h)"])
def test_layer_normalisation_needs_its_channels_and_the_layers_behind_it_shrink(norm: str) -> None:
    net = Net(BLOCK.format(block=f"fc2(F.gelu(fc1({norm})))"), a=conv(3, 6, 3), norm=nn.LayerNorm(6),
              fc1=nn.Linear(6, 16), fc2=nn.Linear(16, 6), last=conv(6, 2), g=nn.Parameter(torch.empty(6)),
              h=nn.Parameter(torch.empty(6)))  # fmt: skip
    net = masked(net, {"fc1": [0, 1, 5, 9], "fc2": [2, 3], "a": [2]})
    with torch.no_grad():
        net.norm.weight[[1, 4]] = net.g[[1, 4]] = 0.0
    result = check(net, {"a": (3, 5), "fc1": (4, 12), "fc2": (12, 4)})  # the constant is appended as a number
    assert any("layer normalisation needs all channels" in note for note in result.report.notes)


def test_tokens_with_a_class_token_and_positions() -> None:
    expression = """
    fc(norm((lambda t: t + up(F.relu(down(norm(t)))))(
        torch.cat([token.expand(x.shape[0], -1, -1), a(x).flatten(2).transpose(1, 2)], dim=1) + places))[:, 0])
    """
    net = Net(
        expression,
        a=conv(3, 6, 4, stride=4),
        norm=nn.LayerNorm(6),
        down=nn.Linear(6, 12),
        up=nn.Linear(12, 6),
        fc=nn.Linear(6, 2),
        token=nn.Parameter(torch.empty(1, 1, 6)),
        places=nn.Parameter(torch.empty(1, 10, 6)),
    )
    check(masked(net, {"down": [0, 4, 5], "a": [1]}), {"down": (6, 9), "up": (9, 6)}, sizes=(8,))


def test_tokens_without_normalisation_lose_channels() -> None:
    expression = "fc(torch.cat([token.expand(x.shape[0], -1, -1), a(x).flatten(2).transpose(1, 2)], 1) + places)"
    net = Net(expression, a=conv(3, 6, 4, stride=4), fc=nn.Linear(6, 2), token=nn.Parameter(torch.empty(1, 1, 6)),
              places=nn.Parameter(torch.empty(1, 10, 6)))  # fmt: skip
    net = masked(net, {"a": [0, 1, 2]})
    with torch.no_grad():
        net.token[..., :2] = net.a.bias[1] = net.places[..., 1] = 0.0
    shrunk = check(net, {"a": (3, 3), "fc": (5, 2)}, sizes=(8,)).model
    assert shrunk.get_parameter("token").shape == (1, 1, 5)
