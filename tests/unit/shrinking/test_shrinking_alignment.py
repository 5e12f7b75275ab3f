"""Aligned widths: multiples of a vector, the same numbers, the most important filters, and a report of the cost."""

from __future__ import annotations

import pytest
import torch
from masked_networks import SmallResNet, lenet, mask
from torch import nn

from edgeprune.errors import UserError
from edgeprune.shrinking import shrink


@pytest.mark.parametrize("align", [8, 16])
@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_inner_widths_are_multiples_and_outputs_equal(align: int, beta: bool, ratio: float) -> None:
    masked = mask(SmallResNet(2, 16), ratio, seed=2, beta=beta).double()
    shrunk = shrink(masked, torch.zeros(1, 3, 16, 16).double(), align=align)
    inner = [m for name, m in shrunk.model.named_modules() if name.endswith("conv1") and isinstance(m, nn.Conv2d)]
    assert len(inner) == 6
    assert all(m.out_channels % align == 0 for m in inner)
    for size in (16, 21):
        image = torch.randn(2, 3, size, size).double()
        with torch.no_grad():
            expected, actual = masked(image), shrunk.model(image)
        assert torch.allclose(expected, actual, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_the_most_important_removed_filters_stay() -> None:
    masked = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    with torch.no_grad():
        masked[2].weight[:, 3:] = 0.0  # nothing needs filters 3 to 15 of the first layer
        for place, size in ((15, 5.0), (9, 4.0), (4, 3.0), (11, 2.0), (7, 1.5)):
            masked[0].weight[place] = size
    kept = shrink(masked, torch.zeros(1, 3, 8, 8), align=8).model.get_submodule("0").weight
    wanted = masked[0].weight[[0, 1, 2, 4, 7, 9, 11, 15]]
    assert torch.equal(kept, wanted)


def test_kept_filters_can_be_trained_again() -> None:
    masked = mask(lenet(), 0.5, seed=0, beta=True)
    shrunk = shrink(masked, torch.zeros(1, 1, 28, 28), align=8)
    assert shrunk.model.get_submodule("7").out_features == 16
    before = [parameter.detach().clone() for parameter in shrunk.model.parameters()]
    optimizer = torch.optim.SGD(shrunk.model.parameters(), lr=0.1)
    shrunk.model(torch.randn(4, 1, 28, 28)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, shrunk.model.parameters(), strict=True))


def test_the_report_says_what_it_cost_and_gained() -> None:
    masked = mask(SmallResNet(2, 16), 0.5, seed=2, beta=False)
    image = torch.zeros(1, 3, 16, 16)
    least, aligned = shrink(masked, image, additions="gather"), shrink(masked, image, "gather", align=8)
    (note,) = [note for note in aligned.report.notes if note.startswith("aligned to 8")]
    more = sum(
        m.weight.numel() * sign
        for sign, network in ((1, aligned.model), (-1, least.model))
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    )
    assert f"for {more:,} more weights" in note
    assert any("outputs kept on purpose" in text for row in aligned.report.layers for text in row.notes)


def test_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match="7"):
        shrink(lenet(), torch.zeros(1, 1, 28, 28), align=7)
