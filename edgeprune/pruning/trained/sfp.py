"""Soft filter pruning: zeroed filters go on being trained and may grow again (He et al. 2018). Start with `prune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeprune.pruning.choosing import Scope, choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.training import Hooks

if TYPE_CHECKING:
    from edgeprune.datasets import Dataset


@dataclass
class SoftPruning(Hooks):
    """After each epoch zeroes the filters of smallest p-norm; `gone` are those of the last epoch."""

    layers: tuple[str, ...]
    ratio: float
    norm: float
    scope: Scope
    gone: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    ever: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def before_step(self, model: nn.Module, rate: float) -> None:
        """Zeroed filters learn no faster than the others of their layer do.

        The paper does not say so. But a batch-norm behind a filter of zeros divides by the root of its epsilon: the
        first step would throw the filter's norm far beyond all others, and their places would change every epoch.
        """
        for name, gone in self.gone.items():
            gradient = model.get_parameter(f"{name}.weight").grad
            if gradient is None or not bool(gone.any()):
                continue
            sizes = gradient.flatten(1).norm(dim=1)
            where = gone.to(sizes.device)
            scale = (sizes[~where].mean() / sizes[where].clamp(min=1e-12)).clamp(max=1.0)
            gradient[where] *= scale.view(-1, *[1] * (gradient.dim() - 1))

    def after_epoch(self, model: nn.Module, dataset: Dataset, epoch: int) -> None:
        """Algorithm 1: norms of the filters as trained, the lowest set to zero; nothing is held."""
        weights = {name: model.get_parameter(f"{name}.weight").detach().flatten(1) for name in self.layers}
        norms = {name: one.double().norm(self.norm, dim=1).cpu() for name, one in weights.items()}
        self.gone = choose(norms, self.ratio, self.scope)
        self.ever = {name: one | self.ever.get(name, one) for name, one in self.gone.items()}
        Masks({name: ~one for name, one in self.gone.items()}).hold(model)

    def state(self) -> dict[str, Any]:
        """Both choices."""
        return {"gone": self.gone, "ever": self.ever}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.gone, self.ever = state["gone"], state["ever"]


def prune(job: Job, *, norm: float) -> Masks:
    """Masks of the last epoch's choice; the facts tell how many filters were zeroed once and came back.

    Args:
        job: The network.
        norm: p of the p-norm (equation 2 of the paper; 2 there).
    """
    sites = find_sites(job.model)
    hooks = SoftPruning(tuple(site.layer for site in sites), job.ratio, norm, job.scope)
    job.train("soft", hooks=hooks)
    regrown = sum(int((hooks.ever[name] & ~gone).sum()) for name, gone in hooks.gone.items())
    return job.filter_masks(sites, hooks.gone, {"regrown_filters": regrown})
