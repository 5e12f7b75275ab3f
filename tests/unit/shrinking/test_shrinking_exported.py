"""Networks that only torch.export can follow are shrunk as exactly and as far as those that torch.fx can."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from masked_networks import RandomNetwork, SmallResNet, lenet, mask, mask_randomly
from torch import nn
from torch.nn import functional as F

from edgeprune.errors import ModelError, TraceError
from edgeprune.shrinking import graph, largest_difference, shrink
from edgeprune.shrinking.exported import trace_exported
from edgeprune.shrinking.sizes import HeldSizes
from tests.unit import outside_networks


class Stem(nn.Module):
    """A residual stem; subclasses decide in forward by what torch.fx can not see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x)
        y += x
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.last(y)), 1).flatten(1))

    def start(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.bn(self.conv(x)))


class BySize(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > 8:
            x = F.avg_pool2d(x, 2)
        return self.head(self.start(x))


class Loop(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        for _ in range(x.size(1) // 4):
            x = self.relu(self.inner(x)) + x
        return self.head(x)


class Asserts(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 4
        assert x.shape[1] == 3
        return self.head(self.start(x))


class AsInteger(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.start(F.interpolate(x, size=(2 * int(x.shape[2]), 2 * int(x.shape[3])))))


class AsksTypes(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.start(x if isinstance(x, torch.Tensor) else torch.stack(x)))


class InTraining(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        if self.training and float(x.mean()) > 0:
            x = x * 2
        return self.head(x * len(x.shape))


class Mirror(nn.Conv2d):
    """A layer of the user's own: torch.fx would see a function and a bare weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (1, 1) if x.dim() == 4 else (0, 0)
        return F.conv2d(F.pad(x, (left, right, left, right)), self.weight, self.bias)


class OwnLayer(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Mirror(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 4
        x = self.start(x)
        y = self.inner(x)
        y.mul_(0.5)
        return self.head(self.inner(y) + x)


class WritesAPart(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        if x.shape[2] > 1:
            x[:, :, 1:] *= 0.5
        return self.head(self.relu(self.inner(x)))


class Dictionary(Stem):
    def forward(self, batch: dict[str, Any], scale: float = 1.0, *, more: bool = False) -> dict[str, Any]:
        x, (y, offset) = batch["image"], batch["others"]
        if x.shape == y.shape and not more:
            x = x + y
        x = self.start(x)
        return {"classes": self.head(x), "maps": (x * scale, [offset])}


SHAPES = [BySize, Loop, Asserts, AsInteger, AsksTypes, InTraining, OwnLayer, WritesAPart]


@pytest.mark.parametrize("kind", SHAPES)
def test_is_exact_and_keeps_the_names(kind: type[Stem]) -> None:
    masked = mask(kind(), 0.6, seed=3, beta=True).double()
    images = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    result = shrink(masked, images)
    assert result.report.params_after < result.report.params_before
    assert any("torch.export" in note for note in result.report.notes)
    assert {name for name, _ in result.model.named_parameters()} <= {name for name, _ in masked.named_parameters()}
    for batch in (images, torch.randn(2, 3, 12, 12, dtype=torch.float64)):
        difference, _ = largest_difference(masked, result.model, (batch,))
        assert difference <= 1e-10
    other = torch.randn(2, 3, 17, 17, dtype=torch.float64)
    if kind is not AsInteger:
        difference, _ = largest_difference(masked, result.model, (other,))
        assert difference <= 1e-10
    else:
        with pytest.raises(ModelError, match=r"not for \[2, 3, 17, 17\]"):
            result.model(other)


@pytest.mark.parametrize("size", [8, 12])
def test_sizes_that_would_go_another_way_are_refused(size: int) -> None:
    masked = mask(BySize(), 0.5, seed=0, beta=True).double()
    model = shrink(masked, torch.randn(1, 3, size, size).double()).model
    for other in (4, 7, 8, 9, 10, 16):
        images = torch.randn(2, 3, other, other).double()
        if (other > 8) == (size > 8):
            assert largest_difference(masked, model, (images,))[0] <= 1e-10
        else:
            with pytest.raises(ModelError, match="holds for inputs"):
                model(images)


def test_structured_inputs_and_outputs_keep_their_structure() -> None:
    masked = mask(Dictionary(), 0.5, seed=1, beta=True).double()

    def batch(images: int, size: int) -> tuple[dict[str, Any], ...]:
        x, y = torch.randn(2, images, 3, size, size).double().unbind()
        return ({"image": x, "others": [y, torch.ones(images).double()]},)

    result = shrink(masked, batch(1, 9))
    assert result.report.params_after < result.report.params_before
    for inputs in (batch(1, 9), batch(2, 9), batch(2, 14)):
        given = result.model(*inputs)
        assert given.keys() == {"classes", "maps"}
        assert isinstance(given["maps"], tuple)
        assert largest_difference(masked, result.model, inputs)[0] <= 1e-10


def test_a_layer_called_twice_is_one_module() -> None:
    masked = mask(Loop(), 0.5, seed=3, beta=True)
    model = shrink(masked, torch.randn(1, 3, 12, 12)).model
    assert sum(node.target == "inner" for node in model.graph.nodes) == 2
    assert len([name for name, _ in model.named_parameters() if name.startswith("inner")]) == 2


def exported_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: nn.Module, given: int) -> None:
        raise TraceError("not by torch.fx")

    monkeypatch.setattr(graph, "symbolic_trace", refuse)


NETWORKS = {
    "projection": (lambda: mask(SmallResNet(2, 8), 0.5, seed=0, beta=True), (1, 3, 16, 16)),
    "pad": (lambda: mask(SmallResNet(2, 8, "pad"), 0.5, seed=0, beta=True), (2, 3, 16, 16)),
    "lenet": (lambda: mask(lenet(), 0.5, seed=0, beta=True), (1, 1, 28, 28)),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_both_ways_of_tracing_give_the_same_widths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, shape = NETWORKS[name]
    masked, images = build(), torch.randn(shape)
    by_fx = shrink(masked, images)
    exported_instead(monkeypatch)
    by_export = shrink(masked, images)
    shapes = {key: value.shape for key, value in by_export.model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in by_fx.model.state_dict().items()}
    assert by_export.report.layers == by_fx.report.layers


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x1_0", "mobilenet_v3_small", "googlenet"])
def test_networks_from_outside_shrink_as_far_when_exported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, images = mask(outside_networks.build(name), 0.5, seed=0, beta=True), torch.randn(1, 3, 64, 64)
    by_fx = shrink(masked, images)
    exported_instead(monkeypatch)
    by_export = shrink(masked, images)
    shapes = {key: value.shape for key, value in by_export.model.named_parameters()}
    assert shapes == {key: value.shape for key, value in by_fx.model.named_parameters()}
    assert by_export.report.unknown == by_fx.report.unknown


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_shrink_as_far_when_exported(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = mask_randomly(RandomNetwork(seed), seed)
    images = torch.randn(1, masked.inputs, masked.size, masked.size).double()
    by_fx = shrink(masked, images).report
    exported_instead(monkeypatch)
    result = shrink(masked, images)
    assert result.report.params_after == by_fx.params_after
    assert largest_difference(masked, result.model, (torch.cat([images, -images]),))[0] <= 1e-10


def test_a_model_of_random_sizes_is_the_traced_one() -> None:
    model = Loop().double().eval()
    root = trace_exported(model, (torch.randn(1, 3, 12, 12).double(),))
    assert isinstance(root.model, torch.fx.GraphModule)
    for size in (1, 3, 8, 21):
        assert largest_difference(model, root.model, (torch.randn(3, 3, size, size).double(),))[0] == 0.0


class ByNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if x.sum() > 0 else -x


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            self.calls += 1
        return x + self.calls


def test_what_nothing_can_follow_is_told_with_its_line() -> None:
    with pytest.raises(TraceError, match=r"ByNumbers\.forward at .*test_shrinking_exported\.py:\d+: ") as caught:
        shrink(ByNumbers(), torch.zeros(1, 3, 8, 8))
    assert "decides by the numbers in a tensor" in caught.value.message
    assert "\n" not in caught.value.message
    assert "torch.where" in (caught.value.hint or "")


def test_a_model_that_writes_its_buffers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    exported_instead(monkeypatch)
    with pytest.raises(TraceError, match="writes calls"):
        shrink(Counts(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    "condition", ["__import__('os')", "s0.__class__", "s0 ** 99", "(lambda: 1)()", "s0 == 'a'", "s9 > 1", "s0 >"]
)
def test_conditions_on_sizes_are_comparisons_of_sizes(condition: str) -> None:
    with pytest.raises(ModelError, match=r"is (no condition on sizes|of no size)"):
        HeldSizes([["s0", 3]], [condition])


def test_a_network_that_holds_for_some_sizes_is_copied_and_shrunk_again() -> None:
    masked = mask(BySize(), 0.5, seed=0, beta=True)
    images = torch.randn(1, 3, 12, 12)
    once = shrink(masked, images)
    again = shrink(copy.deepcopy(once.model), images)
    assert again.report.params_after == once.report.params_after
    with pytest.raises(ModelError, match="holds for inputs"):
        again.model(torch.randn(1, 3, 8, 8))
