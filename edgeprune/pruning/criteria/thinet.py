"""Filters go greedily by what the next layer's output loses (Luo et al. 2017, ThiNet, sections 3.2 and 3.3).

A sample is one number of the next layer's output, and how much each channel adds to it. Of all channels the one goes
whose removal leaves the smallest sum of squares of everything removed (equation 6, algorithm 1; pruning_mini_project,
I.C). What stays is scaled, each channel by the one factor that brings the samples nearest to what they were (equation
7), and the factors go into the next layer's weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgeprune.pruning.criteria import layerwise
from edgeprune.pruning.criteria.context import Choice, Network


def choose(network: Network, counts: Mapping[str, int], positions: int = 10) -> Choice:
    """The filters that go, and the next layers' weights rescaled.

    Args:
        network: With data.
        counts: How many filters of each layer go.
        positions: Places sampled of each image; 10 as in the paper.

    Raises:
        UserError: there is no data, or removed filters would not be zero.
    """

    def step(readings: list[layerwise.Reading], count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = torch.cat([_parts(one, network.random) for one in readings])
        gone = _greedy(parts, count)
        factors = torch.ones(parts.shape[1], dtype=torch.float64)
        if count:
            kept = parts[:, ~gone]
            factors[~gone] = torch.linalg.lstsq(kept, parts.sum(1, keepdim=True), driver="gelsd").solution[:, 0]
        return gone, {one.reader: one.weight * factors[:, None] for one in readings}

    return layerwise.choose(network, counts, positions, step)


def _parts(reading: layerwise.Reading, random: torch.Generator) -> torch.Tensor:
    """How much each channel adds to one output, drawn by chance, of each sample: [samples, C]."""
    outputs = torch.randint(len(reading.weight), (len(reading.inputs),), generator=random)
    return (reading.inputs * reading.weight[outputs]).sum(2)


def _greedy(parts: torch.Tensor, count: int) -> torch.Tensor:
    """bool [C]: the `count` channels whose sum is the smallest, taken one by one."""
    products = parts.mT @ parts
    gone = torch.zeros(len(products), dtype=torch.bool)
    for _ in range(count):
        # the square of a sum: that of what is gone already is the same for every next one
        loss = products.diagonal() + 2.0 * products[:, gone].sum(1)
        gone[int(loss.masked_fill(gone, torch.inf).argmin())] = True
    return gone
