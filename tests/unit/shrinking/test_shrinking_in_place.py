"""In-place operations seen under other names of the tensor, and batches that a trace was not made for.

Start with `test_other_names_see_the_write`; each forward writes into a tensor that it then reads by another name.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import TraceError
from edgeprune.shrinking import shrink
from edgeprune.shrinking.copying import private_copy
from edgeprune.shrinking.graph import trace
from edgeprune.shrinking.probing import probe

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Two layers side by side and one behind; every other filter of the first is zero."""

    def __init__(self, way: Forward) -> None:
        super().__init__()
        self.first, self.beside = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.last, self.drop = nn.Conv2d(8, 4, 1), nn.Dropout()
        self.way = way
        with torch.no_grad():
            self.first.weight[::2] = 0.0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def added(net: Net, x: Tensor) -> Tensor:
    """b += y, read as a."""
    a = net.first(x)
    b = a
    b += net.beside(x)
    return net.last(F.relu(a))


def scaled(net: Net, x: Tensor) -> Tensor:
    """Division and power."""
    a = net.first(x)
    b = a
    b /= 2
    b **= 2
    return net.last(a)


def cast(net: Net, x: Tensor) -> Tensor:
    """A cast to its own type is the tensor itself."""
    a = net.first(x)
    a.to(a.dtype).mul_(2.0)
    return net.last(F.relu(a))


def copied(net: Net, x: Tensor) -> Tensor:
    """A method that has no pure twin."""
    a = net.first(x)
    a.copy_(net.beside(x))
    return net.last(F.relu(a))


def cut_off(net: Net, x: Tensor) -> Tensor:
    """A function whose result nobody reads."""
    a = net.first(x)
    F.threshold_(a, 0.1, 0.2)
    return net.last(a)


def of_sizes(net: Net, x: Tensor) -> Tensor:
    """A number is not overwritten."""
    a = net.first(x)
    height = a.shape[2]
    width = height
    width += a.size(3)
    return net.last(F.interpolate(F.relu(a), size=(height, width)))


@pytest.mark.parametrize("way", [added, scaled, cast, copied, cut_off, of_sizes])
def test_other_names_see_the_write(way: Forward) -> None:
    torch.manual_seed(0)
    net = Net(way)
    shrunk = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64)).model
    image = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(shrunk(image), net(image), rtol=0.0, atol=1e-10)


def test_a_dropout_that_sleeps_gives_the_tensor_itself() -> None:
    def chosen(net: Net, x: Tensor) -> Tensor:
        a = net.first(x)
        b = net.drop(a)
        b += 1.0
        return net.last(F.relu(a)).argmax(1)

    with pytest.raises(TraceError):
        shrink(Net(chosen), torch.randn(1, 3, 8, 8, dtype=torch.float64))


def test_a_forward_that_decides_by_the_batch_takes_the_examples() -> None:
    torch.manual_seed(0)
    net = Net(lambda net, x: net.last(F.relu(net.first(x)) if x.shape[0] == 1 else net.beside(x)))
    shrunk = shrink(net, torch.randn(1, 3, 8, 8, dtype=torch.float64)).model
    image = torch.randn(1, 3, 12, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(shrunk(image), net(image), rtol=0.0, atol=1e-10)


def test_a_network_of_one_sample_is_compared_on_one() -> None:
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(0), nn.Linear(4, 2)).double()
    example = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    (drawn,) = probe(trace(private_copy(one), example), example)
    assert drawn.shape == (1, 3, 8, 8)
