"""The forms of a sum that are timed against one another make the same network."""

from __future__ import annotations

import torch

import edgeprune as ep
from edgeprune.shrinking import largest_difference
from tests.unit.benchmark_scripts import load


def test_every_form_gives_the_masked_networks_numbers() -> None:
    cases, additions = load("masked_cases"), load("additions")
    image = torch.randn(1, 3, 32, 32)
    network = next(network for network in load("shrinking_speed").NETWORKS if network.name == "resnet56")
    masked = cases.masked(cases.randomised(network), 0.5, "A", image)
    gathered = ep.shrink(masked, image, additions="gather").model
    scattered, with_zeros = additions.scattered(gathered), additions.zero_rows(masked, image)
    for form in (scattered, with_zeros):
        assert largest_difference(masked, form, (image,))[0] <= 1e-5
    assert any(isinstance(module, additions.Scatter) for module in scattered.modules())
    assert ep.count(with_zeros, image).params > ep.count(gathered, image).params
