"""The proof of a shrunk network: on which inputs it is made, and that it refuses what differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from masked_networks import SmallResNet, lenet, mask
from torch import nn

from edgeprune.errors import ModelError, ShrinkError
from edgeprune.shrinking import shrink, shrinker
from edgeprune.shrinking.copying import private_copy
from edgeprune.shrinking.graph import trace
from edgeprune.shrinking.probing import probe
from edgeprune.shrinking.rewrite import rewrite
from edgeprune.shrinking.verify import verify


def probed(model: nn.Module, *inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of the inputs on which a model would be compared."""
    return [tuple(one.shape) for one in probe(trace(private_copy(model), inputs), inputs)]


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((1, 3, 224, 224), (2, 3, 64, 64)),
        ((8, 3, 32, 32), (2, 3, 16, 16)),
        ((1, 3, 16, 16), (2, 3, 16, 16)),
        ((1, 3, 256, 512), (2, 3, 32, 64)),
        ((1, 3, 299, 299), (2, 3, 64, 64)),
        ((2, 3, 64, 48), (2, 3, 64, 48)),
    ],
)
def test_images_are_made_smaller(shape: tuple[int, ...], small: tuple[int, ...]) -> None:
    assert probed(SmallResNet(), torch.zeros(shape)) == [small]


def test_images_of_two_sizes_keep_their_proportion() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
            return nn.functional.max_pool2d(x, 2) + half

    assert probed(Two(), torch.zeros(1, 3, 224, 224), torch.zeros(1, 3, 112, 112)) == [(2, 3, 64, 64), (2, 3, 32, 32)]


def test_a_network_of_one_size_keeps_it() -> None:
    big = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.Flatten(), nn.Linear(4 * 24 * 24, 3))
    assert probed(big, torch.zeros(1, 1, 100, 100)) == [(2, 1, 100, 100)]


def test_a_network_whose_channels_depend_on_the_size_keeps_it() -> None:
    assert probed(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), torch.zeros(1, 1, 100, 100)) == [(2, 1, 100, 100)]


def test_no_image_becomes_a_single_pixel() -> None:
    deep = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(16))
    assert probed(deep, torch.zeros(1, 1, 32, 32)) == [(2, 1, 32, 32)]


def test_a_network_that_needs_more_than_64_pixels_gets_128() -> None:
    assert probed(nn.Sequential(nn.Conv2d(1, 4, 75)), torch.zeros(1, 1, 299, 299)) == [(2, 1, 128, 128)]


def test_whole_numbers_are_the_examples() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    tokens = torch.tensor([[1, 9, 3]] * 5)
    (drawn,) = probe(trace(private_copy(model), (tokens,)), (tokens,))
    assert torch.equal(drawn, tokens[:2])


class Broken(nn.Module):
    """Differs from the identity in one pixel at the border."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, :, 0, 0] += 0.01
        return x


def test_a_difference_in_one_pixel_is_refused() -> None:
    with pytest.raises(ShrinkError, match="differs"):
        verify(nn.Identity(), Broken(), (torch.randn(1, 2, 8, 8),))


def test_a_shrunk_network_that_fails_is_refused() -> None:
    with pytest.raises(ShrinkError, match="the shrunk Identity fails"):
        verify(nn.Identity(), nn.Linear(3, 3), (torch.randn(1, 2),))


class Logarithm(nn.Module):
    """Makes NaN of negative numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


def test_where_random_numbers_make_nan_the_examples_are_compared() -> None:
    example, random = (torch.rand(1, 2, 8, 8) + 0.5,), (torch.randn(1, 2, 8, 8),)
    assert verify(Logarithm(), Logarithm(), random, example) == 0.0
    with pytest.raises(ShrinkError, match="differs"):
        verify(Logarithm(), nn.Sequential(Logarithm(), Broken()), random, example)


def test_a_masked_network_that_gives_nan_is_no_fault_of_the_shrunk_one() -> None:
    with pytest.raises(ShrinkError, match="Logarithm itself gives NaN") as caught:
        verify(Logarithm(), Logarithm(), (torch.randn(1, 2, 8, 8),), (-torch.ones(1, 2, 8, 8),))
    assert "report" not in (caught.value.hint or "")


def test_numbers_of_another_type_are_told_with_the_examples_shape() -> None:
    with pytest.raises(ModelError, match=r"\[1, 1, 28, 28\]"):
        shrink(mask(lenet(), 0.5, seed=0, beta=True), torch.zeros(1, 1, 28, 28).double())


def test_zeros_for_what_rounding_leaves_of_zero_are_equal() -> None:
    class Rounds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.0 + torch.finfo(x.dtype).eps

    class Zeros(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.0

    for dtype in (torch.float32, torch.float64):
        verify(Rounds(), Zeros(), (torch.randn(1, 2, 8, 8, dtype=dtype),))
        with pytest.raises(ShrinkError, match="differs"):
            verify(Rounds(), nn.Identity(), (torch.randn(1, 2, 8, 8, dtype=dtype),))


def test_a_second_opinion_in_double_excuses_rounding() -> None:
    class Rounds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 + 3e-5) if x.dtype is torch.float32 else x

    assert verify(nn.Identity(), Rounds(), (torch.randn(1, 2, 8, 8),)) == pytest.approx(3e-5, rel=0.1)


class Chosen(nn.Module):
    """Answers with whole numbers alone: the largest of each row, shifted."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1) + self.shift


class Phase(nn.Module):
    """A complex output; what is added stands in its imaginary part."""

    def __init__(self, added: float) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.complex(x, x + self.added)


class Sign(nn.Module):
    """A Boolean output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x > 0


@pytest.mark.parametrize(
    ("masked", "shrunk"),
    [(Chosen(0), Chosen(1)), (Phase(0.0), Phase(0.1)), (Sign(), nn.Sequential(nn.Threshold(0.5, 0.0), Sign()))],
    ids=["whole", "complex", "Boolean"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_that_are_no_real_numbers_are_compared_too(
    masked: nn.Module, shrunk: nn.Module, dtype: torch.dtype
) -> None:
    inputs = (torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(dtype),)
    assert verify(masked, masked, inputs) == 0.0
    with pytest.raises(ShrinkError, match="differs"):
        verify(masked, shrunk, inputs)


def test_complex_weights_are_refused() -> None:
    with pytest.raises(ModelError, match=r"1\.weight is complex"):
        shrink(nn.Sequential(nn.Identity(), nn.Linear(3, 2, dtype=torch.complex64)), torch.zeros(1, 3))


def test_whole_numbers_that_rounding_alone_changes_pass_and_are_counted() -> None:
    class Steps(nn.Module):
        def __init__(self, error: float) -> None:
            super().__init__()
            self.error = error

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((x * (1 + self.error) if x.dtype is torch.float32 else x) * 1e3).floor().long()

    images = (torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)),)
    assert 0.0 < verify(Steps(0.0), Steps(1e-5), images) < 0.1


class Classes(nn.Module):
    """Answers with whole numbers or truth values that a small network's scores are chosen by."""

    def __init__(self, choice: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1))
        self.choice = choice

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        scores = self.body(x)
        if self.choice == "argmax":
            return scores.argmax(1).flatten(1)
        if self.choice == "both":
            return scores.mean((1, 2, 3)), (2.0 * scores).argmax(1)
        if self.choice == "max":
            return torch.max(scores, 1)[1]
        if self.choice == "masked":
            return scores.masked_fill(scores < -0.3, float("-inf")).argmax(1)
        return scores.mean((2, 3)) > 1e3


@pytest.mark.parametrize("choice", ["argmax", "both", "max", "masked", "above"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scores_of_chosen_classes_are_compared(
    choice: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mask(Classes(choice), 0.5, seed=0, beta=True).to(dtype)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = shrink(net, image)
    assert result.report.params_after < result.report.params_before
    assert result.report.difference < (1e-5 if dtype is torch.float32 else 1e-10)

    def wrong(*args: Any) -> Any:
        made, places = rewrite(*args)
        with torch.no_grad():
            made.get_submodule("body.3").weight.mul_(1.001)  # the same classes
            made.get_submodule("body.3").bias.mul_(1.001)
        return made, places

    monkeypatch.setattr(shrinker, "rewrite", wrong)
    with pytest.raises(ShrinkError, match="differs"):
        shrink(net, image)


@pytest.mark.parametrize("choice", ["argmax", "both", "above"])
def test_classes_that_dropped_constants_change_are_counted(choice: str) -> None:
    net = mask(Classes(choice), 0.5, seed=0, beta=True)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = shrink(net, image, constants="drop")
    with torch.no_grad():
        outputs = [model(image) for model in (net, result.model)]
    classes, others = [output[-1] if choice == "both" else output for output in outputs]
    part = float((classes != others).double().mean())
    assert part <= result.report.difference
    assert (choice == "above") == (part == 0.0)


def test_scores_whose_channels_were_moved_or_cut_are_compared_as_they_are() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            total = self.left(x) + self.right(x)
            return self.last(total.relu()), total.shape[2] * torch.ones_like(total[:, 0], dtype=torch.int64)

    net = mask(Parts(), 0.5, seed=0, beta=True).double()
    result = shrink(net, torch.randn(2, 3, 6, 6).double())
    assert result.report.params_after < result.report.params_before
