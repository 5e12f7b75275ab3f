"""Loss-based sensitivity regularisation: weights whose gradient is small are shrunk, then cut. Start with `prune`.

round_trip_journey_pruned_networks, section 2 and equation 1; the update and the threshold's search are those of
Tartaglione et al. 2021, Loss-based sensitivity regularization, there cited as [1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError, UserError
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.worsening import largest_threshold, validation_loss
from edgeprune.training import Hooks

if TYPE_CHECKING:
    from edgeprune.datasets import Dataset


@dataclass
class LossSensitivity(Hooks):
    """Shrinks each weight by lambda w (1 - S) where its sensitivity S = |dL/dw| (equation 1) is below 1.

    After each epoch weights below a threshold are cut for good: the highest one at which the validation loss grows
    by no more than the tolerance, and at which no more than the ratio is gone.
    """

    layers: tuple[str, ...]
    strength: float
    tolerance: float
    ratio: float
    kept: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    sensitivity: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def before_step(self, model: nn.Module, rate: float) -> None:
        """Take the sensitivities from the gradients of the loss, before momentum and weight decay come in."""
        for name in self.layers:
            gradient = model.get_parameter(f"{name}.weight").grad
            if gradient is not None:
                self.sensitivity[name] = gradient.detach().abs()

    @torch.no_grad()
    def after_step(self, model: nn.Module, rate: float) -> None:
        """w <- w - lambda w relu(1 - S); what was cut stays cut."""
        for name, sensitivity in self.sensitivity.items():
            weight = model.get_parameter(f"{name}.weight")
            weight.sub_(self.strength * weight * torch.relu(1.0 - sensitivity))
            if name in self.kept:
                weight.mul_(self.kept[name].to(weight.device))

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, dataset: Dataset, epoch: int) -> None:
        """Find the threshold and cut."""
        weights = {name: model.get_parameter(f"{name}.weight") for name in self.layers}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        sizes = torch.cat([one.abs().flatten() for one in before.values()]).sort().values
        highest = float(sizes[math.floor(self.ratio * len(sizes) + 1e-9)])

        def loss_at(threshold: float) -> float:
            for name, weight in weights.items():
                weight.copy_(before[name] * (before[name].abs() >= threshold))
            return validation_loss(model, dataset)

        limit = (1.0 + self.tolerance) * validation_loss(model, dataset)
        loss_at(largest_threshold(loss_at, highest, limit))
        self.kept = {name: (weight != 0).cpu() for name, weight in weights.items()}

    def state(self) -> dict[str, Any]:
        """What was cut."""
        return {"kept": self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.kept = state["kept"]


def prune(job: Job, *, strength: float, tolerance: float, fill: bool) -> Masks:
    """Masks of single weights; `ratio` is a share of the weights of convolutions and linear layers.

    Args:
        job: The network.
        strength: Lambda.
        tolerance: By which share the validation loss may grow in one cut (the paper's TWT).
        fill: Whether the smallest weights go at the end until the ratio is reached; if not, what the method cut by
            itself is the result. The facts tell both shares.

    Raises:
        ModelError: No layer to prune.
        UserError: A strength or tolerance below 0.
    """
    if strength < 0.0 or tolerance < 0.0:
        raise UserError(f"method lobster: strength is {strength}, tolerance {tolerance}", hint="neither is below 0")
    layers = tuple(name for name, one in job.model.named_modules() if isinstance(one, _ConvNd | nn.Linear))
    if not layers:
        raise ModelError(
            f"{type(job.model).__name__} has no layer to prune", hint="it takes a convolution or linear one"
        )
    hooks = LossSensitivity(layers, strength, tolerance, job.ratio)
    job.train("sensitivity", hooks=hooks)
    sizes = {name: job.model.get_parameter(f"{name}.weight").detach().abs().cpu() for name in layers}
    kept = {name: size > 0 for name, size in sizes.items()}
    everything = torch.cat([one.flatten() for one in sizes.values()])
    facts = {"cut_by_itself": float((everything == 0).double().mean())}
    if fill:
        gone = torch.zeros(len(everything), dtype=torch.bool)
        gone[torch.argsort(everything, stable=True)[: math.floor(job.ratio * len(everything) + 1e-9)]] = True
        pieces = torch.split(~gone, [one.numel() for one in sizes.values()])
        kept = {name: kept[name] & one.view_as(kept[name]) for name, one in zip(sizes, pieces, strict=True)}
    return Masks(kept, facts=facts, replaced=job.model.state_dict())
