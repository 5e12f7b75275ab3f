"""A feature map matters by how the loss would change without it (Molchanov et al. 2017, section 2.2, equation 8)."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeprune.errors import ModelError
from edgeprune.pruning.criteria.context import Network


def scores(network: Network) -> dict[str, torch.Tensor]:
    """First-order change of the loss, float64 [C_out] of each layer: |mean of gradient times map|, over the images.

    Raises:
        UserError: there is no data.
        ModelError: the model puts out something else than class scores.
    """
    network.model.requires_grad_(True)
    maps = network.flows.maps()
    totals = {site.layer: torch.zeros((), dtype=torch.float64) for site in network.sites}
    count = 0
    for images, labels in network.batches():
        seen, output = network.flows.run([node for _, node in maps], images)
        loss = _loss(output, labels)
        values = [seen[node] for _, node in maps]
        gradients = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
        for (layer, _), value, gradient in zip(maps, values, gradients, strict=True):
            product = (value * gradient).detach().double()
            change = product.flatten(2).mean(2) if product.dim() == 4 else product.flatten(0, -2)
            totals[layer] = totals[layer] + change.abs().sum(0)
        count += len(images)
    return {layer: total / count for layer, total in totals.items()}


def _loss(output: object, labels: torch.Tensor) -> torch.Tensor:
    """Sum, so that each image's gradient is its own."""
    if not isinstance(output, torch.Tensor):
        raise ModelError(
            f"method taylor needs class scores to make a loss of, the model puts out a {type(output).__name__}",
            hint="wrap the model in one that returns the scores alone, or take a method without a loss, such as hrank",
        )
    return functional.cross_entropy(output, labels, reduction="sum")
