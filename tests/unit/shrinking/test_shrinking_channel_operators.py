"""Operators on parts, groups and runs of channels, writes through views, and whole layers cut.

Start with `operator_networks.check`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from operator_networks import BLOCK, LAYERS, Net, check, conv, masked, squeeze_and_excitation
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import TraceError
from edgeprune.shrinking import load_shrunk, shrink

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
@pytest.mark.parametrize("biases", [False, True], ids=["A", "B"])
def test_pixel_shuffle_takes_blocks_and_needs_no_rows_for_constants(shuffle: str, biases: bool) -> None:
    net = masked(Net(f"last({shuffle})", a=conv(3, 12, 3), last=conv(3, 2, 3), up=nn.PixelShuffle(2)), {
        "a": [0, 1, 2, 3, 5]
    }, biases=biases)  # fmt: skip
    # the first block is zero, or four numbers of its own
    check(net, {"a": (3, 7), "last": (2 + biases, 2)})


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
    # 4 and 5 are a group of constants, nothing reads that of 2 and 3, and 0 counts as a number in the mean of 0 and 1
    shrunk = check(net, {"a": (3, 3), "last": (4, 2)}).model
    assert shrunk.get_submodule("norm").num_groups == 2


def test_a_dead_scale_of_a_group_normalisation() -> None:
    net = Net("last(norm(a(x)))", a=conv(3, 8, 3), norm=nn.GroupNorm(4, 8), last=conv(8, 2))
    net = masked(net, {})
    with torch.no_grad():
        net.norm.weight[[0, 1, 4]] = 0.0
    check(net, {"a": (3, 6)})


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
