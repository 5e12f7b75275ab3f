"""Shrinking in a loop, as a search over ratios does, holds no network that its caller has dropped."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from masked_networks import lenet, mask

from edgeprune.shrinking import shrink
from edgeprune.shrinking.shrinker import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_a_call_outlives_its_result(method: str) -> None:
    masked = mask(lenet(), 0.5, seed=0, beta=True)
    shrink(masked, torch.zeros(1, 1, 28, 28), method=method)  # makes what is kept for later calls
    gc.collect()
    before = _tensors()
    shrink(masked, torch.zeros(1, 1, 28, 28), method=method)
    gc.collect()
    assert _tensors() == before


def test_a_network_that_nobody_keeps_is_gone_after_the_next_call() -> None:
    masked = mask(lenet(), 0.5, seed=0, beta=True)
    dropped = weakref.ref(shrink(masked, torch.zeros(1, 1, 28, 28)).model)
    shrink(masked, torch.zeros(1, 1, 28, 28))
    assert dropped() is None


def _tensors() -> int:
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
