"""Every operator the shrinker knows: the same numbers, nothing unknown, and the widths that its rule promises.

Start with `check`. Each network is a few convolutions and one expression; `dead` filters are zero, their biases stay.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import TraceError
from edgeprune.shrinking import Shrunk, load_shrunk, shrink

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


BLOCK = "last((lambda y: y + ({block}).permute(0, 3, 1, 2))(a(x)))"


@pytest.mark.parametrize("norm", ["norm(y.permute(0, 2, 3, 1))", "F.layer_norm(y.permute(0, 2, 3, 1), (6,), g, h)"])
def test_layer_normalisation_needs_its_channels_and_the_layers_behind_it_shrink(norm: str) -> None:
    net = Net(BLOCK.format(block=f"fc2(F.gelu(fc1({norm})))"), a=conv(3, 6, 3), norm=nn.LayerNorm(6),
              fc1=nn.Linear(6, 16), fc2=nn.Linear(16, 6), last=conv(6, 2), g=nn.Parameter(torch.empty(6)),
              h=nn.Parameter(torch.empty(6)))  # fmt: skip
    net = masked(net, {"fc1": [0, 1, 5, 9], "fc2": [2, 3], "a": [2]})
    with torch.no_grad():
        net.norm.weight[[1, 4]] = net.g[[1, 4]] = 0.0
    result = check(net, {"fc1": (4, 12), "fc2": (12, 4)})
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


HALVES = [
    "last((lambda y: y[0] * y[1])(a(x).chunk(2, 1)))", "last((lambda y: y[0] * y[1])(torch.split(a(x), 4, dim=1)))",
    "last((lambda y: y[0] * y[-1])(a(x).split([4, 4], 1)))", "last(a(x)[:, :4] * b(x)[:, 4:])",
    "last((lambda y: y[0] * y[1])(torch.tensor_split(a(x), 2, dim=1)))",
    "last((lambda y: y[:, : y.shape[1] // 2] * y.narrow(1, 4, 4))(a(x)))", "last(a(x)[:, [6, 1, 3, 2]] * a(x)[:, ::2])",
    "last((lambda y: torch.cat([y[:, 4:], y[:, -8:4]], 1)[:, 2:6] * y[:, 2:6])(a(x)))",
    "last((lambda p: p[0] + p[1])(a(x).chunk(2, 1)))", "last(a(x)[..., 1:5, :, :])",
]  # fmt: skip


@pytest.mark.parametrize("expression", HALVES)
def test_parts_of_the_channels(expression: str) -> None:
    net = masked(Net(expression, a=conv(3, 8, 3), b=conv(3, 8), last=conv(4, 2)), {"a": [0, 3, 5, 6], "b": [4, 5]})
    check(net, {})


def test_a_part_that_nothing_reads_goes() -> None:
    net = masked(Net("last(a(x).chunk(4, 1)[2])", a=conv(3, 8, 3), last=conv(2, 2)), {"a": [4]})
    check(net, {"a": (3, 1), "last": (1, 2)})
    net = masked(Net("last((lambda y: torch.cat([y, y[:, 1:4], y], 1))(a(x)))", a=conv(3, 4), last=conv(11, 2)),
                 {"a": [0, 2]})  # fmt: skip
    shrunk = check(net, {"a": (3, 2), "last": (6, 2)}).model
    assert not [name for name, _ in shrunk.named_modules() if "select" in name]


SHUFFLES = [
    "(lambda y: y.view(y.size(0), 2, y.size(1) // 2, y.size(2), y.size(3)).transpose(1, 2).contiguous()"
    ".view(y.size(0), -1, y.size(2), y.size(3)))(a(x))",
    "(lambda y, s: torch.transpose(y.view(s[0], 2, s[1] // 2, s[2], s[3]), 1, 2).contiguous().view(*s))"
    "(*(lambda y: (y, list_(y.size())))(a(x)))",
    "(lambda y: y.reshape(-1, 2, 4, y.shape[2], y.shape[3]).permute(0, 2, 1, 3, 4).flatten(1, 2))(a(x))",
    "F.channel_shuffle(a(x), 2)", "shuffle(a(x))",
]  # fmt: skip


@pytest.mark.parametrize("expression", SHUFFLES)
def test_a_channel_shuffle_is_free(expression: str) -> None:
    net = Net(f"last({expression})", a=conv(3, 8, 3), shuffle=nn.ChannelShuffle(2), last=conv(8, 2, 3))
    shrunk = check(masked(net, {"a": [0, 3, 4]}, biases=False), {"a": (3, 5), "last": (5, 2)}).model
    assert {name for name, _ in shrunk.named_children()} == {"a", "last"}


def test_a_unit_of_shufflenet() -> None:
    halves = "(lambda h: torch.cat([h[0], b(h[1])], 1))(a(x).chunk(2, 1))"
    net = Net(f"last(F.channel_shuffle({halves}, 2))", a=conv(3, 8, 3), b=conv(4, 4, 3), last=conv(8, 2))
    check(masked(net, {"a": [0, 5], "b": [2]}, biases=False), {"a": (3, 6), "b": (3, 3), "last": (6, 2)})


def test_a_shuffle_that_is_none_is_left_alone() -> None:
    net = Net("last(a(x).view(-1, 2, 4, 8, 8).transpose(2, 3).reshape(-1, 8, 8, 8))", a=conv(3, 8), last=conv(8, 2))
    check(masked(net, {"a": [0]}), {"a": (3, 8)}, sizes=(8,), unknown=2)


@pytest.mark.parametrize("shuffle", ["F.pixel_shuffle(a(x), 2)", "up(a(x))"])
def test_pixel_shuffle_moves_whole_blocks(shuffle: str) -> None:
    net = masked(Net(f"last({shuffle})", a=conv(3, 12, 3), last=conv(3, 2, 3), up=nn.PixelShuffle(2)), {
        "a": [0, 1, 2, 3, 5]
    }, biases=False)  # fmt: skip
    check(net, {"a": (3, 8), "last": (2, 2)})


@pytest.mark.parametrize("unshuffle", ["F.pixel_unshuffle(a(x), 2)", "down(a(x))"])
def test_pixel_unshuffle(unshuffle: str) -> None:
    net = masked(Net(f"last({unshuffle})", a=conv(3, 4), last=conv(16, 2), down=nn.PixelUnshuffle(2)), {"a": [1]})
    check(net, {"a": (3, 3), "last": (12, 2)}, sizes=(8, 12))


CHANNEL_WISE: dict[str, nn.Module] = {
    "instance": nn.InstanceNorm2d(8), "affine instance": nn.InstanceNorm2d(8, affine=True), "slope": nn.PReLU(),
    "running instance": nn.InstanceNorm2d(8, affine=True, track_running_stats=True), "slopes": nn.PReLU(8),
    "zero pad": nn.ZeroPad2d((1, 0, 2, 1)), "constant pad": nn.ConstantPad2d(1, 0.3), "reflect": nn.ReflectionPad2d(2),
    "replicate": nn.ReplicationPad2d((1, 2, 0, 1)), "circular": nn.CircularPad2d(1), "up": nn.Upsample(scale_factor=2),
}  # fmt: skip
IN_PLACE = ["F.pad(y, (1, 1, 2, 2), mode='reflect')", "F.pad(y, (1, 1, 0, 1), 'replicate')", "y.clip(-0.2, 0.2)",
            "y.abs().sqrt()", "y ** 2", "y.amax((2, 3), keepdim=True)", "torch.amax(y, 3, keepdim=True)",
            "y.sum((2, 3), keepdim=True)", "F.relu6(y)", "F.hardtanh(y, -0.1, 0.1)", "torch.clamp_min(y, -0.1)",
            "F.adaptive_max_pool2d(y, 1)", "y.add_(0.5).mul_(2)"]  # fmt: skip


@pytest.mark.parametrize("name", [*CHANNEL_WISE, *IN_PLACE])
@pytest.mark.parametrize("biases", [False, True])
def test_operators_that_treat_each_channel_alone(name: str, biases: bool) -> None:
    expression = "op(a(x))" if name in CHANNEL_WISE else f"(lambda y: {name})(a(x))"
    net = Net(f"last({expression})", a=conv(3, 8, 3), op=CHANNEL_WISE.get(name, nn.Identity()), last=conv(8, 2))
    net = masked(net, {"a": [0, 4, 5]}, biases=biases)
    # constants become a pattern there, for which one channel stands, or a number that depends on the image
    spread = biases and name in ("zero pad", IN_PLACE[7])
    width = 8 if name == "constant pad" else 6 if spread else 5
    check(net, {"a": (3, width), "last": (width, 2)})


@pytest.mark.parametrize("affine", [False, True])
def test_group_normalisation_keeps_whole_groups(affine: bool) -> None:
    net = Net("last(norm(a(x)))", a=conv(3, 8, 3), norm=nn.GroupNorm(4, 8, affine=affine), last=conv(8, 2))
    net = masked(net, {"a": [0, 4, 5]})
    with torch.no_grad():
        net.last.weight[:, 2:4] = 0.0
    # 4 and 5 are a group of constants, nothing reads that of 2 and 3, and 0 counts in the mean of 0 and 1
    shrunk = check(net, {"a": (3, 4), "last": (4, 2)}).model
    assert shrunk.get_submodule("norm").num_groups == 2


def test_a_dead_scale_of_a_group_normalisation() -> None:
    net = Net("last(norm(a(x)))", a=conv(3, 8, 3), norm=nn.GroupNorm(4, 8), last=conv(8, 2))
    net = masked(net, {})
    with torch.no_grad():
        net.norm.weight[[0, 1, 4]] = 0.0
    check(net, {"a": (3, 6)})


SHARED: list[nn.Module] = [nn.PReLU(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)]


@pytest.mark.parametrize("case", range(len(SHARED)))
def test_layers_called_twice(case: int) -> None:
    net = Net("last(torch.cat([op(a(x)), op(b(x))], 1))", a=conv(3, 8, 3), b=conv(3, 8), op=SHARED[case],
              last=conv(16, 2, 3))  # fmt: skip
    check(masked(net, {"a": [0, 1, 2], "b": [0, 1, 4]}), {})


GROUPED = "last(g(F.relu(a(x))))"


def test_each_group_keeps_its_own_channels() -> None:
    net = Net(GROUPED, a=conv(3, 12), g=conv(12, 8, 3, groups=4), last=conv(8, 2))
    net = masked(net, {"a": [0, 3, 4, 9, 10, 11], "g": [2, 7]}, biases=False)
    # groups (inputs, outputs): (2, 2), (1, 1), (3, 2), and one that reads nothing
    shrunk = check(net, {"a": (3, 6), "last": (5, 2)}).model
    assert sum(p.numel() for p in shrunk.get_submodule("g").parameters()) == 9 * (2 * 2 + 1 * 1 + 3 * 2) + 5
    assert {name for name, _ in shrunk.named_children()} == {"a", "g", "last"}
    again = shrink(shrunk, torch.randn(1, 3, 8, 8, dtype=torch.float64)).report
    assert (again.params_after, again.unknown) == (sum(p.numel() for p in shrunk.parameters()), ())


def test_groups_of_equal_widths_stay_one_convolution() -> None:
    net = Net(GROUPED, a=conv(3, 12), g=conv(12, 8, 3, groups=4), last=conv(8, 2))
    net = masked(net, {"a": [0, 4, 9, 6, 7, 8], "g": [2, 4, 5, 1, 7]}, biases=False)
    g = check(net, {"a": (3, 6), "g": (6, 3), "last": (3, 2)}).model.get_submodule("g")
    assert isinstance(g, nn.Conv2d)
    assert g.groups == 3


@pytest.mark.parametrize(("kernel", "width"), [(1, 3), (3, 6)])
def test_constants_in_groups(kernel: int, width: int) -> None:
    net = Net("last(g(torch.sigmoid(a(x))))", a=conv(3, 12), g=conv(12, 8, kernel, groups=4), last=conv(8, 2))
    net = masked(net, {"a": [0, 1, 3, 4, 5, 9], "g": [4, 5]})
    # nothing reads the third group; in front of a zero border one constant stands for those of its group
    check(net, {"a": (3, width)})


def test_a_depthwise_multiplier_may_lose_some_outputs_of_a_channel() -> None:
    net = Net(GROUPED, a=conv(3, 4), g=conv(4, 12, 3, groups=4), last=conv(12, 2))
    net = masked(net, {"a": [0], "g": [3, 7, 8, 9, 10, 11]}, biases=False)
    shrunk = check(net, {"a": (3, 2), "last": (3, 2)}).model
    assert shrunk.get_submodule("g").out_channels == 3


def test_a_grouped_convolution_that_is_called_twice() -> None:
    net = Net("last(g(F.relu(a(x))) + g(torch.sigmoid(b(x))))", a=conv(3, 12), b=conv(3, 12), last=conv(8, 2),
              g=conv(12, 8, 3, groups=4))  # fmt: skip
    check(masked(net, {"a": [0, 3, 4], "b": [5, 6, 7, 8], "g": [0, 4, 5]}), {})


class Writes(nn.Module):
    """A tensor y that is overwritten under another name, and read again."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.a, self.last, self.write = conv(3, 6, 3), conv(6, 2), write

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.write(y)
        return self.last(y)


WRITES: list[Callable[[Tensor], object]] = [
    lambda y: y[:, 0].add_(1.0), lambda y: y.view(y.size(0), 6, -1).relu_(), lambda y: y.chunk(2, 1)[0].mul_(2.0),
    lambda y: y.transpose(1, 2).add_(1), lambda y: torch.add(y, 1, out=y), lambda y: F.relu(y.flatten(2), inplace=True),
    lambda y: operator.setitem(y, (slice(None), 1), 0.5), lambda y: y[:, 1:].relu_().mul_(2.0),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(WRITES)))
def test_writing_through_a_view_changes_the_tensor(case: int) -> None:
    net = masked(Writes(WRITES[case]), {"a": [0, 2]})
    result = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    image = torch.randn(2, 3, 11, 11, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(net(image), result.model(image), rtol=0.0, atol=1e-12)


def test_a_write_that_no_tracer_follows_is_refused() -> None:
    net = masked(Writes(lambda y: F.dropout(y, 0.5, False).mul_(2.0)), {"a": [0, 2]})
    with pytest.raises(TraceError):
        shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64))


def test_a_view_that_is_overwritten_and_alone_read_is_a_value() -> None:
    net = Net("last((lambda y: y.flatten(2).relu_()[..., None])(a(x)))", a=conv(3, 6, 3), last=conv(6, 2))
    check(masked(net, {"a": [0, 2]}), {"a": (3, 4)})


SAVED = {
    "gate": lambda: masked(squeeze_and_excitation(), {"a": [0, 3], "up": [2]}),
    "fixed gate": lambda: masked(squeeze_and_excitation(), {"a": [1], "up": list(range(8))}),
    "groups": lambda: masked(
        Net(GROUPED, a=conv(3, 12), g=conv(12, 8, 3, groups=4), last=conv(8, 2)), {"a": [0, 3, 4], "g": [2, 7]}
    ),
    "shuffle": lambda: masked(Net(f"last({SHUFFLES[0]})[:, :1]", a=conv(3, 8), last=conv(8, 2)), {"a": [0, 3, 4]}),
    "number of channels": lambda: masked(
        Net("last(a(x)) / b(x).size(1) * p", a=conv(3, 6), b=conv(3, 6), last=conv(6, 2),
            p=nn.Parameter(torch.empty(2, 1, 1))), {"a": [0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(SAVED))
def test_shrunk_operators_are_saved_without_their_code(case: str, tmp_path: Path) -> None:
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    result = shrink(SAVED[case](), image)
    assert result.save(tmp_path / "net").needs_code == ()
    with torch.no_grad():
        assert torch.equal(load_shrunk(tmp_path / "net.safetensors")(image), result.model(image))


EVERYTHING_CUT = {
    "gate": squeeze_and_excitation,
    "groups": lambda: Net(GROUPED, a=conv(3, 12), g=conv(12, 8, 3, groups=4), last=conv(8, 2, 3)),
    "norms": lambda: Net("last(n(m(a(x))))", a=conv(3, 8), m=nn.GroupNorm(2, 8), n=nn.InstanceNorm2d(8, affine=True),
                         last=conv(8, 2, 3)),
    "tokens": lambda: Net(BLOCK.format(block="fc2(F.gelu(fc1(norm(y.permute(0, 2, 3, 1)))))"), a=conv(3, 6, 3),
                          norm=nn.LayerNorm(6), fc1=nn.Linear(6, 16), fc2=nn.Linear(16, 6), last=conv(6, 2)),
    "halves": lambda: Net("last((lambda y: y[0] * y[1] - p)(F.channel_shuffle(a(x), 2).chunk(2, 1)))", a=conv(3, 8),
                          last=conv(4, 2), p=nn.Parameter(torch.empty(4, 1, 1))),
    "difference": lambda: Net("last(a(x) - b(x))", a=conv(3, 8), b=conv(3, 8, 3), last=conv(8, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", list(EVERYTHING_CUT))
@pytest.mark.parametrize("all_layers", [False, True])
def test_whole_layers_cut(case: str, all_layers: bool) -> None:
    net = masked(EVERYTHING_CUT[case](), {})
    layers = {name: child for name, child in net.named_children() if isinstance(child, LAYERS)}
    for name in [list(layers)] if all_layers else [[name] for name in layers]:
        cut = masked(EVERYTHING_CUT[case](), {part: list(range(layers[part].weight.shape[0])) for part in name})
        before = sum(p.numel() for p in cut.parameters())
        assert check(cut, {}, sizes=(5, 8)).report.params_after < before


def test_outputs_of_every_shape() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.one = conv(3, 8, 3), conv(4, 8, 3), conv(8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor | list[Tensor]]]:
            low, high = self.a(x).chunk(2, 1)
            y = self.b(low)
            y = torch.sigmoid(y.mean(1, keepdim=True)) * y
            return y, {"one": self.one(y), "all": [high.mean((2, 3)), x]}

    net = masked(Several(), {"a": [0, 5], "b": [1, 2]}, biases=False)
    shrunk = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64)).model
    image = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        (y, rest), (expected, others) = shrunk(image), net(image)
    pairs = [(y, expected), (rest["one"], others["one"]), *zip(rest["all"], others["all"], strict=True)]
    assert all(torch.allclose(one, other, rtol=0.0, atol=1e-12) for one, other in pairs)
    assert shrunk.get_submodule("b").in_channels == 3


def test_a_view_that_takes_all_that_is_left_takes_other_image_sizes() -> None:
    """At one pixel the open size is the number of channels, at more it is not."""
    net = masked(
        Net("(b(F.relu(a(x)))).permute(0, 2, 3, 1).reshape(x.size(0), -1)", a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 6, 1)),
        {"a": [1, 2]},
    )
    shrunk = shrink(net, torch.randn(1, 3, 3, 3, dtype=torch.float64)).model
    for edge in (3, 5):
        images = torch.randn(2, 3, edge, edge, dtype=torch.float64)
        torch.testing.assert_close(shrunk(images), net(images), rtol=1e-10, atol=1e-10)
