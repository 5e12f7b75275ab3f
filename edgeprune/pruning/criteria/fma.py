"""Feature maps that repeat others are redundant (Li et al. 2022, FMA; learned_pruning_models_thesis, section 2.4.1).

The formula is our own reading: the thesis tells only that, layer by layer, those filters go whose feature maps are
redundant, and no measure of it. Here two maps are as redundant as they are correlated over all images and places.
Filters leave one by one: of the most correlated pair the one that is more correlated with the rest too, so that of any
number of equal maps one stays. A map that never changes leaves first.
"""

from __future__ import annotations

import torch

from edgeprune.pruning.criteria.context import Network


def scores(network: Network) -> dict[str, torch.Tensor]:
    """One less a filter's correlation when it leaves, 0 to 1: float64 [C_out] of each layer.

    Raises:
        UserError: there is no data.
    """
    maps = network.flows.maps()
    moments = {site.layer: _Moments() for site in network.sites}
    for images, _ in network.batches():
        with torch.no_grad():
            seen, _ = network.flows.run([node for _, node in maps], images)
        for layer, node in maps:
            value = seen[node].double().cpu()
            moments[layer].add(value.transpose(0, 1).flatten(1) if value.dim() == 4 else value.flatten(0, -2).mT)
    return {layer: _order_of_leaving(one.correlations()) for layer, one in moments.items()}


class _Moments:
    """Sums over samples, enough for correlations."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = self.products = self.origin = torch.zeros(())

    def add(self, values: torch.Tensor) -> None:
        """Take in float64 [C, samples]."""
        if self.count == 0:
            # near the mean, so that the differences of large sums keep their digits
            self.origin = values.mean(1, keepdim=True)
        values = values - self.origin
        self.count += values.shape[1]
        self.sums = self.sums + values.sum(1)
        self.products = self.products + values @ values.mT

    def correlations(self) -> torch.Tensor:
        """Absolute Pearson correlations [C, C]; 1 with a map that never changes."""
        covariances = self.products - torch.outer(self.sums, self.sums) / self.count
        deviations = covariances.diagonal().clamp(min=0.0).sqrt()
        found = covariances.abs() / torch.outer(deviations, deviations)
        return found.nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)


def _order_of_leaving(correlations: torch.Tensor) -> torch.Tensor:
    # rounding may tell the two sides of a pair apart
    left = torch.maximum(correlations, correlations.mT).fill_diagonal_(0.0)
    found = torch.ones(len(left), dtype=torch.float64)
    staying = torch.ones(len(left), dtype=torch.bool)
    for _ in range(len(left) - 1):
        most = float(left.max())
        pair = (left.amax(1) >= most) & staying
        leaving = int(left.sum(1).masked_fill(~pair, -1.0).argmax())
        found[leaving] = 1.0 - most
        staying[leaving] = False
        left[leaving] = left[:, leaving] = 0.0
    return found
