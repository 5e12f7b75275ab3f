"""Indexation-addition is equation 1 of effects_of_structured_pruning_2022, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_networks import SmallResNet, mask
from torch import nn

from edgeprune import models
from edgeprune.shrinking import Gather, IndexAdd, shrink
from edgeprune.shrinking.minimum import minimum


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data(), widths=st.tuples(*[st.integers(1, 5)] * 3), rank=st.integers(2, 5))
def test_index_add_is_the_papers_equation(data: st.DataObject, widths: tuple[int, int, int], rank: int) -> None:
    width_a, width_b, width_c = widths
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    space = [2, 3, 2][: rank - 2]
    a, b = generator.normal(size=(2, width_a, *space)), generator.normal(size=(2, width_b, *space))
    pick_a = data.draw(st.lists(st.integers(-1, width_a - 1), min_size=width_c, max_size=width_c))
    pick_b = data.draw(st.lists(st.integers(-1, width_b - 1), min_size=width_c, max_size=width_c))
    number = data.draw(st.sampled_from([0.0, 0.5]))
    expected = np.zeros((2, width_c, *space))
    for channel, (i, j) in enumerate(zip(pick_a, pick_b, strict=True)):
        expected[:, channel] += a[:, i] if i >= 0 else 0.0
        expected[:, channel] += b[:, j] if j >= 0 else number

    def gather(picks: list[int], width: int, fill: float) -> Gather:
        index = torch.tensor([width if pick < 0 else pick for pick in picks])
        return Gather(index, width, torch.full([1, 1] + [1] * (rank - 2), fill, dtype=torch.float64))

    added = IndexAdd(gather(pick_a, width_a, 0.0), gather(pick_b, width_b, number), None)
    np.testing.assert_allclose(added(torch.from_numpy(a), torch.from_numpy(b)).numpy(), expected, atol=1e-15)


def test_equal_masks_on_both_sides_keep_the_plain_addition() -> None:
    masked = mask(SmallResNet(), 0.0, seed=0, beta=False)
    with torch.no_grad():
        for block in masked.blocks:
            block.conv2.weight[1::2] = 0.0
            block.bn2.bias[1::2] = block.bn2.running_mean[1::2] = 0.0
            if block.project is not None:
                block.project[0].weight[1::2] = 0.0
                block.project[1].bias[1::2] = block.project[1].running_mean[1::2] = 0.0
        masked.conv.weight[1::2] = 0.0
        masked.bn.bias[1::2] = masked.bn.running_mean[1::2] = 0.0
    result = shrink(masked, torch.zeros(1, 3, 16, 16))
    assert result.report.index_additions == ()
    assert result.model.get_submodule("fc").in_features == masked.fc.in_features // 2


@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_the_projects_own_network(shortcut: str, beta: bool) -> None:
    masked: nn.Module = mask(models.build("resnet20", shortcut=shortcut), 0.5, seed=0, beta=beta)
    channels = next(masked.parameters()).shape[1]
    result = shrink(masked, torch.zeros(1, channels, 32, 32))
    assert result.report.unknown == ()
    inputs = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = masked(inputs), result.model(inputs)
    assert float((expected - actual).abs().max()) <= 1e-5 * float(expected.abs().max())


class Meeting(nn.Module):
    """Two layers meet in a sum; then a stream with ever more channels, each branch zero but for a few."""

    def __init__(self, rows: list[list[int]], *, whole: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 8, 3, padding=1) for _ in rows)
        self.last = nn.Conv2d(8, 2, 3)
        self.whole = whole
        with torch.no_grad():
            for layer, alive in zip(self.layers, rows, strict=True):
                dead = [row for row in range(8) if row not in alive]
                layer.weight[dead] = layer.bias[dead] = 0.0
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.layers[0](x)
        for layer in self.layers[1:]:
            total = torch.relu(total + layer(x))
        return total if self.whole else self.last(total)


def index_copies(network: nn.Module) -> int:
    return sum(isinstance(module, Gather) and module.run is None for module in network.modules())


def assert_same(masked: nn.Module, shrunk: nn.Module) -> None:
    image = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(shrunk(image), masked(image), rtol=0, atol=1e-12)


def test_two_layers_that_meet_are_one_run_each() -> None:
    masked, image = Meeting([[0, 3, 5, 6], [1, 3, 6, 7]]), torch.zeros(1, 3, 8, 8).double()
    gathered, cheap = shrink(masked, image, additions="gather"), shrink(masked, image)
    assert (index_copies(gathered.model), index_copies(cheap.model)) == (2, 0)
    assert cheap.report.params_after == gathered.report.params_after == minimum(masked, image).params
    assert_same(masked, cheap.model)


def test_a_stream_grows_at_its_end() -> None:
    masked, image = Meeting([[4, 5], [0, 4], [1, 2, 3]]), torch.zeros(1, 3, 8, 8).double()
    cheap = shrink(masked, image).model
    assert index_copies(cheap) == 0
    assert_same(masked, cheap)


@pytest.mark.parametrize("move", ["flatten", "pixel_unshuffle", "pixel_shuffle", "permute"])
def test_layers_that_meet_behind_other_channels(move: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), LAST[move][0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(LAST[move][1](self.a(x)) + LAST[move][1](self.b(x)))

    masked = Net().double().eval()
    with torch.no_grad():
        masked.a.weight[[0, 2, 5]] = masked.b.weight[[1, 2, 3, 6]] = 0.0
    for options in ({}, {"align": 8}, {"additions": "gather"}):
        image = torch.randn(1, 3, 6, 6).double()
        shrunk = shrink(masked, image, **options).model
        with torch.no_grad():
            assert torch.allclose(shrunk(image), masked(image), rtol=0, atol=1e-12)


LAST: dict[str, tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]] = {
    "flatten": (nn.Linear(128, 4), lambda x: x.flatten(1)),
    "pixel_unshuffle": (nn.Conv2d(32, 4, 1), lambda x: nn.functional.pixel_unshuffle(x, 2)),
    "pixel_shuffle": (nn.Conv2d(2, 4, 1), lambda x: nn.functional.pixel_shuffle(x, 2)),
    "permute": (nn.Linear(8, 4), lambda x: x.permute(0, 2, 3, 1)),
}


def test_channels_keep_their_order_where_a_reader_takes_them_as_they_are() -> None:
    masked, image = Meeting([[4, 5], [0, 4]], whole=True), torch.zeros(1, 3, 8, 8).double()
    assert_same(masked, shrink(masked, image).model)


@pytest.mark.parametrize("seed", range(5))
def test_few_zero_rows_stay_within_their_share(seed: int) -> None:
    image = torch.zeros(1, 3, 16, 16)
    masked = mask(SmallResNet(3, 32), 0.05, seed=seed, beta=True)
    gathered, cheap = shrink(masked, image, additions="gather"), shrink(masked, image)
    assert cheap.report.params_after <= 1.001 * gathered.report.params_after
    assert len(cheap.report.index_additions) <= len(gathered.report.index_additions)


def test_a_zero_row_replaces_a_copy() -> None:
    rows = [list(range(8)), list(range(7))]
    masked, image = Meeting(rows), torch.zeros(1, 3, 8, 8).double()
    with_row = shrink(_deep(masked), image)
    assert with_row.report.index_additions == ()
    assert any("outputs kept on purpose" in note for row in with_row.report.layers for note in row.notes)


def _deep(masked: nn.Module) -> nn.Module:
    """The network behind layers so wide that a zero row more is nothing."""
    return nn.Sequential(nn.Conv2d(3, 600, 3), nn.ReLU(), nn.Conv2d(600, 3, 3), masked).double().eval()
