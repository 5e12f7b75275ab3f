"""Kernel columns that are zero really go: equal numbers in float64, and weights and MACs as formulas in numpy say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeprune.counting import count
from edgeprune.errors import UnknownNameError
from edgeprune.shrinking import Shrunk, load_shrunk, shrink
from edgeprune.shrinking.kernel_columns import KernelColumns, ShiftedImage

SIZES = (13, 16)


def between(layer: nn.Conv2d, seed: int = 0) -> nn.Sequential:
    """The layer with a batch-norm behind it, between 1x1 convolutions that read and write all channels, in double."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, layer.in_channels, 1), nn.ReLU(), layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(),
            nn.Conv2d(layer.out_channels, 4, 1),
        ).double()  # fmt: skip
        for tensor in (*net.parameters(), *net[3].buffers()):
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.1, 1.0)
        nn.init.normal_(layer.weight)
    return net.eval()


def zeroed(layer: nn.Conv2d, kept: np.ndarray[Any, Any]) -> nn.Conv2d:
    """The layer with columns, bool [in / groups, R, S], at zero where they are not kept."""
    with torch.no_grad():
        layer.weight.mul_(torch.from_numpy(kept))
    return layer


def same_outputs(masked: nn.Module, shrunk: nn.Module) -> None:
    random = torch.Generator().manual_seed(1)
    for height, width in (SIZES, (SIZES[0] + 3, SIZES[1] - 2)):
        images = torch.randn(2, 3, height, width, dtype=torch.float64, generator=random)
        with torch.no_grad():
            expected, actual = masked(images), shrunk(images)
        assert actual.shape == expected.shape
        assert float((actual - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def shrunk_by(masked: nn.Module, columns: str = "gather") -> Shrunk:
    result = shrink(masked, torch.zeros(1, 3, *SIZES, dtype=torch.float64), columns=columns)
    same_outputs(masked, result.model)
    return result


def random_layer(seed: int) -> tuple[nn.Conv2d, np.ndarray[Any, Any]]:
    """A convolution of any stride, dilation and padding, some with groups, and the columns of it that are kept."""
    random = np.random.default_rng(seed)
    kernel = tuple(int(one) for one in random.integers(1, 6, 2))
    groups = int(random.choice([1, 1, 2, 8]))
    same = bool(random.integers(0, 2))
    layer = nn.Conv2d(
        8, 16, kernel, bias=bool(random.integers(0, 2)), groups=groups,
        stride=1 if same else tuple(int(one) for one in random.integers(1, 4, 2)),
        dilation=tuple(int(one) for one in random.integers(1, 3, 2)),
        padding="same" if same else tuple(int(one) for one in random.integers(0, 4, 2)),
    )  # fmt: skip
    kept = random.random((8 // groups, *kernel)) < random.choice([0.1, 0.3, 0.6])
    if random.integers(0, 2):  # whole places of the kernel go too
        kept &= random.random((1, *kernel)) < 0.4
    kept.flat[int(random.integers(kept.size))] = True
    return layer, kept


@pytest.mark.parametrize("seed", range(40))
def test_random_columns_cost_what_the_formula_says(seed: int) -> None:
    """PSP, table 2: a column costs one weight a filter, and one multiply-add a filter and pixel."""
    layer, kept = random_layer(seed)
    masked = between(layer, seed)
    zeroed(layer, kept)
    result = shrunk_by(masked)
    with torch.no_grad():
        pixels = masked[:3](torch.zeros(1, 3, *SIZES, dtype=torch.float64))[0, 0].numel()
    spans = [np.flatnonzero(kept.any(axis=axes)) for axes in ((0, 2), (0, 1))]
    if layer.groups == 1:
        columns, read = int(kept.sum()), int(kept.any(axis=(1, 2)).sum())
    else:  # groups have columns of their own, so what goes is the border and regular gaps
        places = [(span[-1] - span[0]) // max(1, np.gcd.reduce(np.diff(span), initial=0)) + 1 for span in spans]
        inside = int(kept.any(axis=(1, 2)).sum())
        columns, read = inside * int(np.prod(places)), inside * layer.groups
    biases = 16 if layer.bias is not None else 0
    counts = count(result.model, torch.zeros(1, 3, *SIZES, dtype=torch.float64))
    assert counts.params == (3 + 1) * read + 16 * columns + biases + 2 * 16 + (16 + 1) * 4
    assert counts.macs == 3 * read * SIZES[0] * SIZES[1] + (16 * columns + 16 * 4) * pixels
    row = next(row for row in result.report.layers if row.layer == "2")
    assert (row.in_after, row.params_after) == (read, 16 * columns + biases)


@pytest.mark.parametrize("seed", range(12))
def test_cheapest_forms_are_equal_and_never_larger(seed: int) -> None:
    layer, kept = random_layer(seed)
    masked = between(layer, seed)
    zeroed(layer, kept)
    auto, smallest, whole = (shrunk_by(masked, columns) for columns in ("auto", "gather", "keep"))
    assert smallest.report.params_after <= auto.report.params_after <= whole.report.params_after
    assert whole.report.params_after <= whole.report.params_before
    kernel = whole.model.get_submodule("2")
    assert isinstance(kernel, nn.Conv2d)
    assert kernel.kernel_size == layer.kernel_size


SHAPES: dict[str, tuple[tuple[int, ...], list[list[int]], tuple[int, ...], tuple[int, ...], bool]] = {
    # padding and dilation, the places that are kept, and the kernel and its padding and dilation, and whether it pads
    # itself
    "a row": ((1, 1), [[0, 0, 0], [1, 1, 1], [0, 0, 0]], (1, 3), (0, 1, 1, 1), True),
    "a column": ((1, 1), [[0, 1, 0], [0, 1, 0], [0, 1, 0]], (3, 1), (1, 0, 1, 1), True),
    "the middle": ((1, 1), [[0, 0, 0], [0, 1, 0], [0, 0, 0]], (1, 1), (0, 0, 1, 1), True),
    "the corners": ((1, 1), [[1, 0, 1], [0, 0, 0], [1, 0, 1]], (2, 2), (1, 1, 2, 2), True),
    "the corners of a dilated one": ((2, 2), [[1, 0, 1], [0, 0, 0], [1, 0, 1]], (2, 2), (2, 2, 4, 4), True),
    "one quarter": ((1, 1), [[1, 1, 0], [1, 1, 0], [0, 0, 0]], (2, 2), (0, 0, 1, 1), False),
    "one corner": ((1, 1), [[0, 0, 1], [0, 0, 0], [0, 0, 0]], (1, 1), (0, 0, 1, 1), False),
    "a row that reads the border": ((3, 1), [[0, 0, 0], [1, 1, 1], [0, 0, 0]], (1, 3), (2, 3, 1, 1), True),
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_leave_smaller_kernels(shape: str, stride: int) -> None:
    """Shape pruning: the kernel is as small as its places, padded to the same output."""
    (padding, dilation), places, size, settings, itself = SHAPES[shape]
    layer = nn.Conv2d(6, 5, 3, stride, padding, dilation)
    masked = between(layer)
    zeroed(layer, np.array([places] * 6, dtype=bool))
    result = shrunk_by(masked)
    made: Any = result.model.get_submodule("2")
    assert made.kernel_size == size
    assert (*made.padding, *made.dilation)[: 2 if size == (1, 1) else 4] == settings[: 2 if size == (1, 1) else 4]
    pads = [one for one in result.model.modules() if isinstance(one, nn.ConstantPad2d | ShiftedImage)]
    assert len(pads) == (0 if itself else 1)
    assert result.report.params_after == result.report.params_before - 30 * (9 - size[0] * size[1])


def test_a_copy_is_made_only_where_it_saves_work() -> None:
    """A depthwise kernel that reads one pixel to the side is one multiply-add less work than its copy is."""
    layer = nn.Conv2d(6, 6, (1, 2), padding=(0, 1), groups=6)
    masked = between(layer)
    zeroed(layer, np.array([[[True, False]]]))
    kept = shrunk_by(masked, "auto")
    assert kept.report.params_after == kept.report.params_before
    assert "1 of 2 kernel columns are zero and stay" in str(kept.report)
    assert shrunk_by(masked, "gather").report.params_after == kept.report.params_before - 6


def test_columns_are_gathered_where_filters_are_many_and_columns_few() -> None:
    for filters, gathers in ((16, False), (320, True)):
        layer = nn.Conv2d(8, filters, 3, padding=1)
        masked = between(layer)
        random = np.random.default_rng(0)
        kept = np.stack([np.isin(np.arange(9), random.permutation(9)[:3]).reshape(3, 3) for _ in range(8)])
        zeroed(layer, kept)
        result = shrunk_by(masked, "auto")
        assert any(isinstance(one, KernelColumns) for one in result.model.modules()) is gathers
        assert ("24 of 72 kernel columns gathered" in str(result.report)) is gathers
        assert ("48 of 72 kernel columns are zero and stay" in str(result.report)) is not gathers
    with pytest.raises(UnknownNameError, match="treatment of kernel columns"):
        shrink(masked, torch.zeros(1, 3, *SIZES, dtype=torch.float64), columns="some")


@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_without_a_row_stays_where_the_whole_is_faster(stride: int) -> None:
    """Compiled code runs a whole 3x3 convolution without strides Winograd's way, and a 2x3 one directly."""
    layer = nn.Conv2d(8, 64, 3, padding=1, stride=stride)
    masked = between(layer)
    zeroed(layer, np.arange(9).reshape(1, 3, 3).repeat(8, axis=0) < 6)
    result = shrunk_by(masked, "auto")
    gone = 0 if stride == 1 else 8 * 64 * 3
    assert result.report.params_after == result.report.params_before - gone
    assert ("24 of 72 kernel columns are zero and stay" in str(result.report)) is (stride == 1)


class Called(nn.Module):
    """A convolution called twice, one by bare parameters, and one over time and one over space and time."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.kernels = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.line = nn.Conv1d(6, 7, 5, padding=2, stride=2)
        self.solid = nn.Conv3d(2, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.twice(torch.relu(self.twice(x)))
        x = F.conv2d(x, self.kernels, padding=2, dilation=2)
        return self.line(torch.relu(x.flatten(2))), self.solid(x.unflatten(1, (2, 3)))


def test_calls_of_all_kinds_and_dimensions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masked = Called().double().eval()
        random = torch.Generator().manual_seed(3)
        kept = []
        for weight in (masked.twice.weight, masked.kernels, masked.line.weight, masked.solid.weight):
            columns = torch.rand(weight[:1].shape, generator=random) < 0.4
            columns[:, :, 0] = True  # each channel is read
            weight.data *= columns
            kept.append(len(weight) * int(columns.sum()))
    images = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=random)
    result = shrink(masked, images, columns="gather")
    for one, other in zip(masked(images), result.model(images), strict=True):
        assert one.shape == other.shape
        assert bool(((one - other).abs() < 1e-12).all())
    assert result.report.params_after == sum(kept) + 3 + 7 + 4


def test_one_image_without_a_batch_is_left_alone() -> None:
    masked = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double().eval()
    zeroed(masked[0], np.eye(3, dtype=bool)[None].repeat(3, 0))
    result = shrink(masked, torch.randn(3, 8, 8, dtype=torch.float64), columns="gather")
    assert result.report.params_after == result.report.params_before


def test_a_network_with_columns_is_saved_shrunk_again_and_trained(tmp_path: Path) -> None:
    layer = nn.Conv2d(6, 40, 3, 2, 1)
    masked = between(layer)
    kept = np.random.default_rng(1).random((6, 3, 3)) < 0.3
    zeroed(layer, kept)
    result = shrunk_by(masked)
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in masked.named_parameters()}
    files = result.save(tmp_path / "net")
    assert files.needs_code == ()
    loaded = load_shrunk(tmp_path / "net")
    images = torch.randn(2, 3, *SIZES, dtype=torch.float64)
    assert torch.equal(loaded(images), result.model(images))
    with torch.no_grad():
        result.model.get_submodule("5").weight[:, 3] = 0.0
    again = shrink(result.model, torch.zeros(1, 3, *SIZES, dtype=torch.float64), columns="gather")
    assert again.report.params_after == result.report.params_after - int(kept.sum()) - 1 - 2 - 4
    same_outputs(result.model, again.model)
    before = copy.deepcopy(result.model.state_dict())
    result.model(images).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(result.model.parameters(), lr=0.1).step()
    assert not torch.equal(before["2.weight"], result.model.get_parameter("2.weight"))


@pytest.mark.parametrize("columns", ["auto", "gather"])
def test_images_smaller_than_what_a_dilated_kernel_reaches(columns: str) -> None:
    """As in the last layers of a segmentation network: most places of the kernel see nothing but the border."""
    layer = nn.Conv2d(6, 200, 3, padding=18, dilation=18)
    masked = between(layer)
    kept = np.random.default_rng(0).random((6, 3, 3)) < 0.3
    kept[:, 1:] = False  # the kernel is trimmed or gathered
    zeroed(layer, kept)
    assert shrunk_by(masked, columns).report.params_after < masked_params(masked)
    whole = np.zeros((6, 3, 3), dtype=bool)
    whole[:, 0, :2] = True
    layer = nn.Conv2d(6, 200, 3, padding=18, dilation=18)
    masked = between(layer)
    zeroed(layer, whole)
    result = shrunk_by(masked, columns)
    assert any(isinstance(one, ShiftedImage) for one in result.model.modules())
    tiny = torch.randn(1, 3, 1, 2, dtype=torch.float64)
    assert torch.allclose(masked(tiny), result.model(tiny), rtol=0, atol=1e-12)


def masked_params(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())
