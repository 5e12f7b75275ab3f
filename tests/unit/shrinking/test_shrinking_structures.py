"""What PSP and SSL prune really goes: columns, channels, shapes, layers and filters of a residual network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.counting import count
from edgeprune.pruning import Masks, prune
from edgeprune.pruning.trained.structures import AXES
from edgeprune.shrinking import Shrunk, shrink
from tests.unit.pruned_nets import quadrants, residual_net

IMAGE = torch.zeros(1, 1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "shift": 0}
INNER = ("first", "second", "third", "fourth")


def shrunk_in_double(masked: nn.Module) -> tuple[nn.Module, Shrunk]:
    """The network without its constants, which leave carriers behind, and what is left of it; both in double."""
    masked = masked.double().eval()
    with torch.no_grad():
        for name in ("stem", *INNER):
            masked.get_submodule(name).bias.zero_()
    result = shrink(masked, IMAGE.double(), columns="gather")
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float((masked(images) - result.model(images)).abs().max()) < 1e-12
    return masked, result


def by_formula(masked: nn.Module) -> tuple[int, int]:
    """Weights and multiply-adds by table 1 of the paper, what nothing reads or makes left out, in numpy."""
    weights = {name: masked.get_submodule(name).weight.detach().numpy() != 0 for name in ("stem", *INNER, "head")}
    layers = [("first", "second"), ("third", "fourth")]
    for inner, outer in layers * 2:
        # a channel between two layers needs both
        alive = weights[inner].any(axis=(1, 2, 3)) & weights[outer].any(axis=(0, 2, 3))
        weights[inner][~alive] = False
        weights[outer][:, ~alive] = False
    columns = {
        name: int(one.any(axis=0).sum()) * int(one.any(axis=tuple(range(1, one.ndim))).sum())
        for name, one in weights.items()
    }
    return sum(columns.values()), sum(64 * columns[name] for name in ("stem", *INNER)) + columns["head"]


@pytest.mark.parametrize("structure", [*AXES, "layer+channel"])
def test_trained_structures_go_for_real(structure: str) -> None:
    masks = prune(residual_net(), IMAGE, "psp", 0.5, data=quadrants(), structure=structure, **QUICK)
    masked, result = shrunk_in_double(masks.apply(residual_net()))
    weights, macs = by_formula(masked)
    counts = count(result.model, IMAGE.double())
    biases = sum(
        one.bias.numel()
        for one in result.model.modules()
        if isinstance(one, nn.Conv2d | nn.Linear) and one.bias is not None
    )
    assert (counts.params - biases, counts.macs) == (weights, macs)
    assert counts.params < count(masked, IMAGE.double()).params
    (told, *_) = masks.facts["structures"]
    assert masks.structures[0] >= told["all"]


def masks_of(**kept: np.ndarray[Any, Any]) -> Masks:
    """Masks of weights' shapes, from what broadcasts to them."""
    net = residual_net()
    return Masks({
        name: torch.from_numpy(np.broadcast_to(one, tuple(net.get_submodule(name).weight.shape)).copy())
        for name, one in kept.items()
    })  # fmt: skip


def test_each_reader_of_a_stream_gathers_its_own_channels() -> None:
    first, third = np.isin(np.arange(6), [0, 2]), np.isin(np.arange(6), [1, 2, 5])
    masks = masks_of(first=first.reshape(1, 6, 1, 1), third=third.reshape(1, 6, 1, 1))
    _, result = shrunk_in_double(masks.apply(residual_net()))
    read = {name: result.model.get_submodule(name).in_channels for name in INNER}
    assert read == {"first": 2, "second": 5, "third": 3, "fourth": 7}


@pytest.mark.parametrize("name", INNER)
def test_a_layer_that_is_masked_takes_its_branch_along(name: str) -> None:
    masks = masks_of(**{name: np.zeros((1, 1, 1, 1), dtype=bool)})
    _, result = shrunk_in_double(masks.apply(residual_net()))
    left = {target for target, _ in result.model.named_modules()} & set(INNER)
    assert left == ({"third", "fourth"} if name in ("first", "second") else {"first", "second"})


def test_ssl_removes_filters_and_the_channels_that_read_them() -> None:
    masks = prune(residual_net(), IMAGE, "ssl", 0.5, data=quadrants(), by_filter=0.01, by_channel=0.01, **QUICK)
    masked, result = shrunk_in_double(masks.apply(residual_net()))
    weights, macs = by_formula(masked)
    counts = count(result.model, IMAGE.double())
    assert counts.macs <= macs
    assert result.model.get_submodule("second").in_channels == int(masks["first"].sum())
    assert masks.structures == (masks.filters, masks.pruned_filters)
    assert weights < sum(layer.weight.numel() for layer in masked.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
