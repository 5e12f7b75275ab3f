"""Feature maps of low rank carry little (Lin et al. 2020, HRank, section 3.2, equations 4 to 6).

The rank of a filter's map hardly depends on which images are looked at, the paper finds: a few hundred are enough. Of
a linear layer, whose maps are single numbers, the rank is 1 where a neuron fires and 0 where it does not.
"""

from __future__ import annotations

import torch

from edgeprune.pruning.criteria.context import Network


def scores(network: Network) -> dict[str, torch.Tensor]:
    """Mean rank of each filter's feature map over the images: float64 [C_out] of each layer.

    Raises:
        UserError: there is no data.
    """
    maps = network.flows.maps()
    totals = {site.layer: torch.zeros((), dtype=torch.float64) for site in network.sites}
    count = 0
    for images, _ in network.batches():
        with torch.no_grad():
            seen, _ = network.flows.run([node for _, node in maps], images)
        for layer, node in maps:
            value = seen[node]
            planes = value if value.dim() == 4 else value.flatten(0, -2)[:, :, None, None]
            totals[layer] = totals[layer] + torch.linalg.matrix_rank(planes).double().sum(0)
        count += len(images)
    return {layer: total / count for layer, total in totals.items()}
