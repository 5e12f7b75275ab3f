"""Operands of equal shapes for the example, of which one is smaller for other inputs: the larger one must stay.

Start with `test_the_larger_operand_gives_the_size`; each case cuts all filters of the layer `dead`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import shrink

Meeting = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A layer, a place where what is made of it meets, a layer."""

    def __init__(self, meet: Meeting) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 1)
        self.dead, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.meet = meet
        nn.init.zeros_(self.dead.weight)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        met: Tensor = self.last(self.meet(self, F.relu(self.first(x))))
        return met


CASES: dict[str, tuple[int, Meeting]] = {
    "a gate beside one pixel": (2, lambda net, a: net.dead(a) + net.other(F.adaptive_avg_pool2d(a, 1))),
    "a gate before one pixel": (2, lambda net, a: net.other(F.adaptive_avg_pool2d(a, 1)) + net.dead(a)),
    "mean of the batch": (8, lambda net, a: a.mean(0, keepdim=True) + net.dead(a)),
    "less the batch": (8, lambda net, a: a.mean(0, keepdim=True) - net.dead(a)),
    "first image": (8, lambda net, a: net.other(a[:1]) + net.dead(a)),
}


@pytest.mark.parametrize(("size", "meet"), CASES.values(), ids=CASES)
def test_the_larger_operand_gives_the_size(size: int, meet: Meeting) -> None:
    torch.manual_seed(0)
    net = Net(meet)
    shrunk = shrink(net, torch.randn(1, 3, size, size, dtype=torch.float64)).model
    for batch, edge in [(1, size), (2, size), (2, 16)]:
        image = torch.randn(batch, 3, edge, edge, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(shrunk(image), net(image), rtol=0.0, atol=1e-10)


def test_a_cut_branch_goes_whole_where_sizes_are_known() -> None:
    net = Net(lambda net, a: a + net.dead(a))
    assert not hasattr(shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64)).model, "dead")


def test_sections_of_another_axis_are_left_alone() -> None:
    torch.manual_seed(0)
    net = Net(lambda net, a: torch.cat(a.split([1, 3], dim=2)[::-1], 2) + net.dead(a))
    shrunk = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64)).model
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(shrunk(image), net(image), rtol=0.0, atol=1e-10)
