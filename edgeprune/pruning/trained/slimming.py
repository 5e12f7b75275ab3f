"""Network slimming: batch-norm scales are pulled to zero while training, the lowest channels go. Start with `prune`.

Liu et al. 2017 with the smooth L1 norm, in linear rounds, as effects_of_structured_pruning_2022, section 4.1 does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import ModelError, UserError
from edgeprune.pruning.choosing import choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import Site, find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.training import Hooks


@dataclass
class SmoothL1OnScales(Hooks):
    """Adds `strength` times the smooth L1 norm of the scales of some batch-norms to the loss (Liu et al. 2017, eq. 1).

    Smooth L1 of x is x^2 / (2 beta) below beta, |x| - beta/2 above; beta 0 is the plain L1 norm.
    """

    batchnorms: tuple[str, ...]
    strength: float
    beta: float

    def penalty(self, model: nn.Module) -> torch.Tensor:
        """The term of the loss."""
        scales = torch.cat([model.get_parameter(f"{name}.weight") for name in self.batchnorms])
        zeros = torch.zeros_like(scales)
        return self.strength * functional.smooth_l1_loss(scales, zeros, reduction="sum", beta=self.beta)


def prune(job: Job, *, penalty: float, beta: float, rounds: int, retrain_epochs: int) -> Masks:
    """Train with the penalty, then prune in rounds, each followed by `retrain_epochs` with penalty and masks.

    Round k of n leaves 1 - ratio k/n of the filters. With scope "global", as in the papers, one threshold holds for
    the scales of all layers as they are.

    Args:
        job: The network.
        penalty: Lambda; the paper has 1e-5 for ResNet-50, 1e-6 for HRNet-48.
        beta: Of the smooth L1 norm.
        rounds: Of pruning.
        retrain_epochs: After each.

    Raises:
        ModelError: A layer has no batch-norm of its own; none has.
        UserError: No rounds, or no epochs in one.
    """
    if rounds < 1 or retrain_epochs < 1 or penalty < 0.0 or beta < 0.0:
        raise UserError("method slimming: rounds and retrain_epochs are at least 1, penalty and beta at least 0")
    sites = with_batchnorm(find_sites(job.model))
    names = {site.layer: str(site.batchnorm) for site in sites}
    hooks = SmoothL1OnScales(tuple(names.values()), penalty, beta)
    job.train("sparsity", hooks=hooks)
    for number in range(1, rounds + 1):
        scales = {name: job.model.get_parameter(f"{norm}.weight").detach().abs() for name, norm in names.items()}
        gone = choose(scales, job.ratio * number / rounds, job.scope, normalise=False)
        job.train(f"round{number}", hooks=hooks, masks=job.filter_masks(sites, gone), epochs=retrain_epochs)
    return job.filter_masks(sites, gone)


def with_batchnorm(sites: list[Site]) -> list[Site]:
    """The layers with a batch-norm of their own; others are not pruned.

    Raises:
        ModelError: There is none.
    """
    found = [site for site in sites if site.batchnorm is not None]
    if not found:
        raise ModelError(
            f"method slimming: layer {sites[0].layer} has no batch-norm behind it, nor has any other",
            hint="use a criterion of weights such as l1, or a network with batch-norm",
        )
    return found
