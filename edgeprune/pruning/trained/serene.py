"""Sensitivity of neurons as a regulariser: what the output does not feel is shrunk, then cut. Start with `prune`.

round_trip_journey_pruned_networks, section 3 and equation 2; the update and the search for the threshold are those of
Tartaglione et al. 2022, SeReNe, there cited as [2].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeprune.errors import UserError
from edgeprune.evaluation import in_evaluation_mode
from edgeprune.pruning.calibration import images_of
from edgeprune.pruning.choosing import choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.layer_outputs import watched
from edgeprune.pruning.trained.worsening import largest_threshold, validation_loss
from edgeprune.training import Hooks

if TYPE_CHECKING:
    from edgeprune.datasets import Dataset


def neuron_sensitivity(model: nn.Module, layers: Sequence[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """S of equation 2: the mean over outputs k of |dy_k / dp|, p what the neuron gives before its activation.

    A filter has a p at every position of every image: S is the mean over them. [C_out] for each layer; what was
    trained keeps its gradients.
    """
    outputs: dict[str, torch.Tensor] = {}

    def remember(name: str, output: torch.Tensor) -> torch.Tensor:
        outputs[name] = output
        # an activation that works in place would overwrite it
        return output.clone()

    with watched(model, layers, remember), in_evaluation_mode(model), torch.enable_grad():
        scores = model(images)
        # images do not mix in evaluation mode, so one backward pass serves all of them
        per_class = scores.transpose(0, 1).flatten(1).sum(1)
        total = {name: torch.zeros(one.shape[1], device=one.device) for name, one in outputs.items()}
        for score in per_class:
            gradients = torch.autograd.grad(
                score, list(outputs.values()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(outputs, gradients, strict=True):
                total[name] += gradient.abs().transpose(0, 1).flatten(1).mean(1) / len(per_class)
    return total


@dataclass
class NeuronSensitivity(Hooks):
    """Shrinks all parameters of a neuron by lambda w relu(1 - S), and cuts neurons of small norm after each epoch.

    The sensitivities are those of `images`, measured again at the start of each epoch. The threshold of the norms is
    the highest at which the validation loss grows by no more than the tolerance; what was cut stays cut.
    """

    layers: tuple[str, ...]
    strength: float
    tolerance: float
    ratio: float
    images: torch.Tensor = field(repr=False)
    kept: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    sensitivity: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def after_step(self, model: nn.Module, rate: float) -> None:
        """The update; the cut neurons are held at zero."""
        if not self.sensitivity:
            self.sensitivity = neuron_sensitivity(model, self.layers, self.images)
        for name, sensitivity in self.sensitivity.items():
            weight = model.get_parameter(f"{name}.weight")
            slack = torch.relu(1.0 - sensitivity).view(-1, *[1] * (weight.dim() - 1))
            weight.sub_(self.strength * weight * slack)
        Masks(self.kept).hold(model)

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, dataset: Dataset, epoch: int) -> None:
        """Find the threshold and cut; at most the ratio of each layer goes."""
        weights = {name: model.get_parameter(f"{name}.weight") for name in self.layers}
        norms = {name: one.flatten(1).norm(dim=1) / one[0].numel() ** 0.5 for name, one in weights.items()}
        allowed = choose({name: one.cpu() for name, one in norms.items()}, self.ratio, "local")
        before = {name: one.clone() for name, one in model.state_dict().items()}

        def cut(threshold: float) -> dict[str, torch.Tensor]:
            return {name: ~(allowed[name] & (one.cpu() <= threshold)) for name, one in norms.items()}

        def loss_at(threshold: float) -> float:
            model.load_state_dict(before)
            Masks(cut(threshold)).hold(model)
            return validation_loss(model, dataset)

        if not any(bool(one.any()) for one in allowed.values()):
            return
        limit = (1.0 + self.tolerance) * validation_loss(model, dataset)
        tops = [one.cpu()[allowed[name]] for name, one in norms.items()]
        highest = float(torch.cat(tops).max())
        best = largest_threshold(loss_at, highest, limit)
        loss_at(best)
        self.kept = cut(best)
        self.sensitivity = {}

    def state(self) -> dict[str, Any]:
        """What was cut."""
        return {"kept": self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.kept = state["kept"]


def prune(job: Job, *, strength: float, tolerance: float, images: int, fill: bool) -> Masks:
    """Masks of whole filters.

    Args:
        job: The network.
        strength: Lambda.
        tolerance: By which share the validation loss may grow in one cut (the paper's TWT).
        images: On how many training images the sensitivity is measured, once an epoch (the paper: every batch).
        fill: Whether the filters of smallest norm go at the end until the ratio is reached; if not, what the method
            cut by itself is the result. The facts tell its share.
    """
    if strength < 0.0 or tolerance < 0.0 or images < 1:
        raise UserError(
            f"method serene: strength is {strength}, tolerance {tolerance}, images {images}",
            hint="the first two are at least 0, images at least 1",
        )
    sites = find_sites(job.model)
    layers = tuple(site.layer for site in sites)
    device = next(job.model.parameters()).device
    seen = images_of(job.dataset.train, images).to(device)
    hooks = NeuronSensitivity(layers, strength, tolerance, job.ratio, seen)
    job.train("sensitivity", hooks=hooks)
    norms = job.norms(layers)
    gone = {name: ~hooks.kept[name] if name in hooks.kept else torch.zeros_like(norms[name]).bool() for name in layers}
    facts = {"cut_by_itself": sum(int(one.sum()) for one in gone.values()) / sum(map(len, gone.values()))}
    if fill:
        gone = choose(norms, job.ratio, job.scope)
    return job.filter_masks(sites, gone, facts)
