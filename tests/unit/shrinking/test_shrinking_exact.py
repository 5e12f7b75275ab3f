"""The shrunk network gives the masked network's numbers, whatever the graph and whatever was zeroed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_networks import RandomNetwork, SmallResNet, lenet, mask, mask_randomly
from torch import nn
from torch.nn import functional as F

from edgeprune.errors import ShrinkError
from edgeprune.shrinking import largest_difference, shrink
from edgeprune.shrinking.verify import verify


def assert_equal(masked: nn.Module, shrunk: nn.Module, inputs: torch.Tensor, tolerance: float = 1e-10) -> None:
    with torch.no_grad():
        expected, actual = masked(inputs.clone()), shrunk(inputs.clone())
    assert actual.shape == expected.shape
    assert float((expected - actual).abs().max()) <= tolerance * max(float(expected.abs().max()), 1e-30)


def images(channels: int, size: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_random_graphs_with_random_zeros(seed: int) -> None:
    masked = mask_randomly(RandomNetwork(seed), seed)
    shrunk = shrink(masked, images(masked.inputs, masked.size)).model
    for batch in (1, 2):
        for size in (masked.size, masked.size + 3):
            assert_equal(masked, shrunk, images(masked.inputs, size, batch, seed))


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.95])
def test_residual_networks(shortcut: str, beta: bool, ratio: float) -> None:
    masked = mask(SmallResNet(depth=2, shortcut=shortcut), ratio, seed=3, beta=beta).double()
    shrunk = shrink(masked, images(3, 16)).model
    for batch, size in ((1, 16), (2, 16), (2, 21)):
        assert_equal(masked, shrunk, images(3, size, batch))


@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
def test_float32_within_1e_5(beta: bool) -> None:
    masked = mask(SmallResNet(depth=3, width=16), 0.5, seed=1, beta=beta)
    assert_equal(masked, shrink(masked, images(3, 32).float()).model, images(3, 32, 2).float(), 1e-5)
    masked = mask(lenet(), 0.5, seed=1, beta=beta)
    assert_equal(masked, shrink(masked, images(1, 28).float()).model, images(1, 28, 2).float(), 1e-5)


@torch.no_grad()
def zeroed(model: nn.Sequential, dead: dict[int, list[int]]) -> nn.Sequential:
    """Double, eval, with the listed filters of the listed layers zeroed and their biases left."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.5)
    for layer, filters in dead.items():
        model[layer].weight[filters] = 0.0
    return model.double().eval()


def test_constants_behind_a_zero_border_need_one_channel() -> None:
    masked = zeroed(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1)), {
        0: [1, 2, 5, 6, 7]
    })  # fmt: skip
    shrunk = shrink(masked, images(3, 8)).model
    assert shrunk.get_submodule("0").out_channels == 4
    for size in (1, 2, 8, 13):
        assert_equal(masked, shrunk, images(3, size, 2))


SPREAD: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: F.pad(x, (1, 2, 0, 1)), lambda x: F.pad(x, (1, 1, 1, 1))[:, :, ::2],
    lambda x: F.interpolate(F.avg_pool2d(x, 3, 1, 1), scale_factor=2, mode="bilinear"),
    lambda x: torch.cat([F.avg_pool2d(x, 3, 1, 1), x], 1),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(SPREAD)))
@pytest.mark.parametrize("padding", [0, 1])
def test_constants_that_met_a_border_need_one_channel(case: int, padding: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.LazyConv2d(4, 3, padding=padding)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(SPREAD[case](torch.sigmoid(self.first(x))))

    torch.manual_seed(0)
    masked = Net()
    masked(torch.zeros(1, 3, 9, 9))
    with torch.no_grad():
        masked.first.weight[3:] = 0.0
    masked = masked.double().eval()
    shrunk = shrink(masked, images(3, 9)).model
    assert shrunk.get_submodule("first").out_channels == 4
    for size in (9, 12):
        assert_equal(masked, shrunk, images(3, size, 2))


def test_one_carrier_serves_two_zero_bordered_readers_of_one_tensor() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.left, self.right = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 5, padding=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.sigmoid(self.first(x))
            return self.left(x) + self.right(x)

    masked = Fork().double().eval()
    with torch.no_grad():
        masked.first.weight[2:] = 0.0
    shrunk = shrink(masked, images(3, 8)).model
    assert shrunk.get_submodule("first").out_channels == 3
    assert_equal(masked, shrunk, images(3, 8, 2))


def test_readers_of_different_channels_read_only_theirs() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.left, self.right = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.sigmoid(self.first(x))
            return self.left(x) + self.right(x)

    masked = Fork().double().eval()
    with torch.no_grad():
        masked.left.weight[:, :4] = 0.0
        masked.right.weight[:, 3:] = 0.0
    shrunk = shrink(masked, images(3, 8)).model
    widths = [shrunk.get_submodule(name).in_channels for name in ("left", "right")]
    assert (shrunk.get_submodule("first").out_channels, widths) == (7, [4, 3])
    assert_equal(masked, shrunk, images(3, 8, 2))


@pytest.mark.parametrize("options", [{}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "valid"}])
def test_constants_that_see_no_border_fold_into_the_bias(options: dict[str, object]) -> None:
    masked = zeroed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3, bias=False, **options)), {
        0: [0, 1, 2, 3, 4]
    })  # fmt: skip
    shrunk = shrink(masked, images(3, 9)).model
    last = shrunk.get_submodule("2")
    assert (last.in_channels, last.bias is not None) == (3, True)
    assert_equal(masked, shrunk, images(3, 9, 2))


CHANNEL_WISE: list[tuple[nn.Module | Callable[[torch.Tensor], torch.Tensor], int]] = [
    (nn.Dropout1d(), 1), (nn.Dropout2d(), 2), (nn.Dropout3d(), 3), (nn.Dropout(), 2), (nn.AlphaDropout(), 1),
    (nn.Softplus(), 3), (lambda x: F.dropout1d(x, training=False), 1), (lambda x: F.dropout2d(x, training=False), 2),
    (lambda x: F.dropout3d(x, training=False), 3), (lambda x: x.contiguous(memory_format=torch.channels_last), 2),
    (lambda x: x.clone(memory_format=torch.channels_last_3d), 3), (lambda x: torch.clamp(x, -0.1, 0.1), 1),
    (nn.Upsample(scale_factor=2), 1), (nn.MaxPool1d(2), 1), (nn.AdaptiveAvgPool3d(2), 3),
    (lambda x: F.max_pool2d(x, 2), 2), (lambda x: F.avg_pool1d(x, 2), 1), (lambda x: F.interpolate(x, size=4), 2),
    (lambda x: x.mean((2, 3), keepdim=True), 2), (lambda x: torch.mean(x, -1, keepdim=True), 1),
]  # fmt: skip


class Between(nn.Module):
    """An operator between two convolutions of 1, 2 or 3 dimensions, the first with dead filters and biases."""

    def __init__(self, operator: nn.Module | Callable[[torch.Tensor], torch.Tensor], dimensions: int) -> None:
        super().__init__()
        convolution = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dimensions - 1]
        self.first, self.operator, self.last = convolution(2, 6, 3), operator, convolution(6, 2, 1)
        with torch.no_grad():
            self.first.weight[::2] = 0.0
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.operator(self.first(x)))


@pytest.mark.parametrize("case", range(len(CHANNEL_WISE)))
def test_channel_wise_operators_of_every_rank(case: int) -> None:
    torch.manual_seed(0)
    operator, dimensions = CHANNEL_WISE[case]
    masked = Between(operator, dimensions)
    image = torch.randn(1, 2, *[7, 8, 9][:dimensions]).double()
    result = shrink(masked, image)
    assert result.model.get_submodule("first").out_channels == 3
    assert result.report.unknown == ()
    assert_equal(masked, result.model, torch.cat([image, -image]))


UNBATCHED_POOLS: list[nn.Module | Callable[[torch.Tensor], torch.Tensor]] = [
    nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(6), nn.AdaptiveMaxPool2d((3, 2)),
    lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 2), lambda x: F.adaptive_avg_pool2d(x, 6),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(UNBATCHED_POOLS)))
def test_a_pool_that_mixes_channels_is_left_alone(case: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = nn.Conv1d(2, 6, 3), UNBATCHED_POOLS[case]
            self.last = nn.LazyConv1d(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.pool(self.first(x)))

    torch.manual_seed(0)
    image = torch.randn(1, 2, 10)
    masked = Net().eval()
    masked(image)
    with torch.no_grad():
        masked.first.weight[1::2] = 0.0
    result = shrink(masked.double(), image.double())
    assert len(result.report.unknown) == 1
    assert result.model.get_submodule("first").out_channels == 6
    assert_equal(masked, result.model, image.double())


class TinyKeptConstant(nn.Module):
    """Of the constants 1e-8 and 1, the tiny one is kept for `twice`; in float32 it is nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.twice, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        with torch.no_grad():
            self.first.weight[2:] = 0.0
            self.norm.bias.fill_(1.0)
            self.norm.running_mean[2] = 0.1234567
            scale = self.norm.weight[2].double() / (self.norm.running_var[2].double() + self.norm.eps).sqrt()
            self.norm.bias[2] = (self.norm.running_mean[2].double() * scale).float()
            self.twice.weight[:, 3:] = 0.0
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        return self.last(x) + self.twice(self.twice(x))


def test_a_tiny_kept_constant_is_no_carrier() -> None:
    torch.manual_seed(0)
    masked = TinyKeptConstant()
    image = images(3, 8).float()
    assert_equal(masked, shrink(masked, image).model, images(3, 8, seed=1).float(), 1e-6)


def test_an_error_of_float32_is_not_excused_by_float64() -> None:
    class Adds(nn.Module):
        def __init__(self, amount: float) -> None:
            super().__init__()
            self.amount = amount

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (self.amount * float(x.abs().max()) if x.dtype is torch.float32 else 0.0)

    image = torch.randn(1, 3, 4, 4)
    assert verify(nn.Identity(), Adds(5e-5), (image,)) == pytest.approx(5e-5, rel=0.1)
    with pytest.raises(ShrinkError, match="differs"):
        verify(nn.Identity(), Adds(2e-4), (image,))


def test_a_difference_to_an_output_of_zeros_is_infinite() -> None:
    zeros, image = nn.Threshold(1e9, 0.0), torch.randn(1, 3)
    assert largest_difference(zeros, zeros, (image,)) == (0.0, torch.float32)
    assert largest_difference(zeros, nn.Threshold(1e9, 1e-30), (image,)) == (float("inf"), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_that_are_rounding_alone_are_equal(dtype: torch.dtype) -> None:
    """The mean of an instance normalisation is zero but for rounding, which the order of summing changes."""
    torch.manual_seed(0)
    masked = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(1)).to(dtype).eval()
    with torch.no_grad():
        masked[0].weight[::2] = 0.0
    shrink(masked, images(3, 9).to(dtype))
    with pytest.raises(ShrinkError, match="differs"):
        verify(nn.Threshold(1e9, 2e-6).to(dtype), nn.Threshold(1e9, 1e-6).to(dtype), (images(3, 9).to(dtype),))


def test_a_filter_whose_weights_sum_to_zero_is_alive() -> None:
    masked = zeroed(nn.Sequential(nn.Conv2d(1, 2, (1, 2)), nn.Conv2d(2, 1, 1)), {})
    with torch.no_grad():
        masked[0].weight[0] = torch.tensor([[[1.0, -1.0]]])
    assert shrink(masked, images(1, 4)).model.get_submodule("0").out_channels == 2


def test_classes_stay_when_the_last_layer_is_masked() -> None:
    masked = zeroed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 6)), {2: [0, 3, 5]})
    shrunk = shrink(masked, images(3, 4)).model
    assert shrunk(images(3, 4)).shape == (1, 6)
    assert_equal(masked, shrunk, images(3, 4, 2))


@pytest.mark.parametrize("cut", ["first", "last", "all"])
def test_everything_cut_gives_the_right_constant(cut: str) -> None:
    masked = mask(SmallResNet(shortcut="pad"), 0.3, seed=5, beta=True).double()
    layers = [m for m in masked.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in {"first": layers[:1], "last": layers[-1:], "all": layers}[cut]:
            layer.weight.zero_()
    result = shrink(masked, images(3, 16))
    for batch, size in ((1, 16), (2, 11)):
        assert_equal(masked, result.model, images(3, size, batch))
    if cut != "first":  # constants alone cross the zero borders of the layers that are left
        assert result.report.params_after < result.report.params_before / 4


def test_a_cut_branch_disappears() -> None:
    masked = mask(SmallResNet(), 0.0, seed=0, beta=True).double()
    with torch.no_grad():
        masked.blocks[0].conv2.weight.zero_()
    shrunk = shrink(masked, images(3, 16)).model
    assert not any(name.startswith("blocks.0") for name, _ in shrunk.named_parameters())
    assert_equal(masked, shrunk, images(3, 16, 2))


class Once(nn.Module):
    """A network around one expression of two convolutions' outputs."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.grouped = nn.Conv2d(6, 9, 3, padding=1, groups=3)
        self.relu = nn.ReLU(inplace=True)
        self.gate = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.last = nn.LazyConv2d(2, 3, padding=1)
        self.code = compile(expression, expression, "eval")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        names = {"self": self, "a": self.a(x), "b": self.b(x), "x": x, "F": F, "torch": torch}
        return self.last(eval(self.code, names))  # noqa: S307 - the expressions stand below


EXPRESSIONS = {
    "plain": "a + b",
    "in-place": "a.add_(b)",
    "alias": "self.relu(a) + a",
    "functional in-place": "F.relu(a, inplace=True) + a + F.relu(b, True) + b",
    "itself": "a + a",
    "pre-activation": "F.relu(a + b) + a",
    "called twice": "self.twice(F.relu(self.twice(a))) + b",
    "called twice on different masks": "self.twice(a) + self.twice(b)",
    "depthwise": "self.depthwise(a) + b",
    "grouped": "self.grouped(a + b)",
    "concatenation": "torch.cat([a, b, a], dim=1)",
    "concatenation of concatenations": "torch.cat((torch.cat([a, b], 1), b), -3)",
    "crop and pad": "F.pad((a + b)[:, :, ::2, 1:], (1, 0, 0, 0, 2, 1))",
    "nonzero pad": "F.pad(a, (1, 1, 1, 1), value=0.3)",
    "pools": "F.avg_pool2d(F.max_pool2d(a, 3, 1, 1), 3, stride=1, padding=1) + b",
    "resize": "F.interpolate(F.avg_pool2d(a, 2), size=b.shape[2:], mode='bilinear') + b",
    "unknown gate": "a * torch.sigmoid(b)",
    "bare parameter": "a * self.gate + b",
    "softmax": "F.softmax(a, 1) + b",
    "chunk": "a.chunk(2, 1)[0] + b[:, 3:]",
    "arithmetic": "2 * (a - 0.5) / 3 + -b",
    "dropout": "F.dropout(a, 0.5, False) + F.dropout(b, training=False)",
    "batch size": "a.view(a.size(0), a.shape[1], -1).mean(-1)[:, :, None, None] + b",
}


@pytest.mark.parametrize("name", list(EXPRESSIONS))
@pytest.mark.parametrize("seed", [0, 1])
def test_expressions(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    masked = Once(EXPRESSIONS[name])
    masked(torch.zeros(1, 3, 8, 8))
    masked = mask(masked.double().eval(), 0.5, seed=seed, beta=True)
    shrunk = shrink(masked, images(3, 8)).model
    for batch, size in ((1, 8), (2, 12)):
        assert_equal(masked, shrunk, images(3, size, batch))


@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
def test_depthwise_separable_residual_network(beta: bool) -> None:
    class Inverted(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, 3 * width, 1, bias=False), nn.BatchNorm2d(3 * width), nn.ReLU6(inplace=True),
                nn.Conv2d(3 * width, 3 * width, 3, 1, 1, groups=3 * width, bias=False), nn.BatchNorm2d(3 * width),
                nn.ReLU6(inplace=True), nn.Conv2d(3 * width, width, 1, bias=False), nn.BatchNorm2d(width),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.body(x)

    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Inverted(8), Inverted(8), nn.AdaptiveAvgPool2d(1))
    masked = mask(network, 0.4, seed=2, beta=beta).double()
    result = shrink(masked, images(3, 9))
    assert_equal(masked, result.model, images(3, 10, 2))
    assert result.report.params_after < 0.7 * result.report.params_before


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(1, 6, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> dict[str, torch.Tensor]:
            a, b = self.a(x), self.b(y)
            return {"sum": (a + b) * scale, "a": a}

    masked = mask(Two(), 0.5, seed=0, beta=True).double()
    inputs = images(3, 8), images(1, 8)
    expected, actual = masked(*inputs), shrink(masked, inputs).model(*inputs)
    assert all(torch.allclose(expected[key], actual[key], rtol=0, atol=1e-12) for key in ("sum", "a"))


def test_the_model_is_not_changed_and_may_be_training() -> None:
    masked = mask(SmallResNet(), 0.5, seed=0, beta=True).double().train()
    before = copy.deepcopy(masked.state_dict())
    shrunk = shrink(masked, images(3, 16)).model
    assert masked.training
    assert not shrunk.training
    assert all(torch.equal(before[key], value) for key, value in masked.state_dict().items())
    with torch.no_grad():
        for parameter in shrunk.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in masked.state_dict().items())


@pytest.mark.parametrize(
    "spelling", ["x.view(-1, 144)", "x.view(x.shape[0], -1)", "x.reshape(len_, 144)", "x.flatten(1)"]
)
def test_spellings_of_flatten(spelling: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 9, 3), nn.Linear(144, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.fc(eval(spelling, {"x": x, "len_": x.size(0)}))  # noqa: S307 - the spellings stand above

    masked = mask(Net(), 0.5, seed=0, beta=True).double()
    shrunk = shrink(masked, images(3, 6)).model
    kept = shrunk.get_submodule("conv").out_channels
    assert kept < 9
    assert shrunk.get_submodule("fc").in_features == kept * 16
    assert_equal(masked, shrunk, images(3, 6, 2))
