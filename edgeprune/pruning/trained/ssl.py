"""Group lasso over filters and over channels while training (Wen et al. 2016). Start with `prune`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgeprune.errors import UserError
from edgeprune.pruning.choosing import choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.training import Hooks


@dataclass
class GroupLasso(Hooks):
    """Adds the two sums of learned_pruning_models_thesis, equations 2.11 and 2.12 (Wen et al. 2016, equation 4).

    Each weight [N, C, ...] adds `by_filter` times the sum over n of the norm of W[n], and `by_channel` times the sum
    over c of the norm of W[:, c].
    """

    layers: tuple[str, ...]
    by_filter: float
    by_channel: float

    def penalty(self, model: nn.Module) -> torch.Tensor:
        """The term of the loss; the gradient of a group that is zero is zero."""
        terms = []
        for name in self.layers:
            weight = model.get_parameter(f"{name}.weight")
            terms.append(self.by_filter * torch.linalg.vector_norm(weight.flatten(1), dim=1).sum())
            channels = weight.transpose(0, 1).flatten(1)
            terms.append(self.by_channel * torch.linalg.vector_norm(channels, dim=1).sum())
        return torch.stack(terms).sum()


def prune(job: Job, *, by_filter: float, by_channel: float) -> Masks:
    """Train with the penalty; the filters of smallest norm go, as many as the ratio says.

    Args:
        job: The network.
        by_filter: Lambda_n of equation 2.11.
        by_channel: Lambda_c of equation 2.12; a channel that is zero in a layer takes the filter before it along when
            the network is shrunk.
    """
    if by_filter < 0.0 or by_channel < 0.0:
        raise UserError(f"method ssl: by_filter is {by_filter}, by_channel {by_channel}", hint="neither is below 0")
    sites = find_sites(job.model)
    layers = tuple(site.layer for site in sites)
    job.train("lasso", hooks=GroupLasso(layers, by_filter, by_channel))
    return job.filter_masks(sites, choose(job.norms(layers), job.ratio, job.scope))
