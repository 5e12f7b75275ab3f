"""Channels whose use in the next layer goes along with that of others are redundant (Wang et al. 2019, COP, section 3).

Two channels are compared by the weights that the next layer reads them with: the absolute Pearson correlation over its
filters (learned_pruning_models_thesis, equation 2.4), averaged over the places of the kernel, and divided by the
largest of the layer. A channel's importance is one less the mean of its closest neighbours' correlations. The paper's
further terms, for a layer's parameters and computation, are the same for all its filters; they are not added here.
"""

from __future__ import annotations

import torch

from edgeprune.pruning.criteria.context import Network
from edgeprune.pruning.criteria.reading import channels_as_read, direct


def scores(network: Network, neighbours: int = 3) -> dict[str, torch.Tensor]:
    """Importance of each filter, float64 [C_out], at most 1, for each layer with direct readers.

    Args:
        network: Weights alone are looked at.
        neighbours: How many of the most correlated others count.
    """
    found = {}
    for layer, readers in direct(network).items():
        every_place = [_correlations(channels_as_read(network, layer, reader)) for reader in readers]
        found[layer] = _importance(torch.cat(every_place).mean(0), neighbours)
    return found


def _correlations(weights: torch.Tensor) -> torch.Tensor:
    """Absolute Pearson correlations of channels over a reader's filters at each place: [places, C, C]."""
    deviations = (weights - weights.mean(0)).permute(2, 1, 0)
    lengths = deviations.norm(dim=2, keepdim=True)
    correlations = (deviations @ deviations.mT).abs() / (lengths @ lengths.mT)
    # a channel that all filters read alike tells them nothing apart: as redundant as can be
    return torch.nan_to_num(correlations, nan=1.0).clamp(max=1.0)


def _importance(correlations: torch.Tensor, neighbours: int) -> torch.Tensor:
    channels = len(correlations)
    others = correlations.masked_fill(torch.eye(channels, dtype=torch.bool), 0.0)
    closest = others.topk(min(neighbours, channels - 1)).values if channels > 1 else others
    most = float(others.max())
    return 1.0 - closest.mean(1) / (most if most > 0.0 else 1.0)
