"""Neurons at equilibrium: gradients of settled neurons are skipped while training goes on. Start with `prune`.

round_trip_journey_pruned_networks, section 5 and equation 3 (Bragagnolo et al. 2022, To update or not to update?).
Nothing is removed: what is saved is the work of training, and the masks' facts tell how much.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import ModelError, UserError
from edgeprune.evaluation import in_evaluation_mode
from edgeprune.pruning.calibration import images_of
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.layer_outputs import watched
from edgeprune.pruning.trained.settled_layers import SettledLayers
from edgeprune.training import Hooks

if TYPE_CHECKING:
    from edgeprune.datasets import Dataset


def velocity(similarity: torch.Tensor, before: torch.Tensor, last: torch.Tensor, memory: float) -> torch.Tensor:
    """v of equation 3 from phi now, phi and v of the epoch before: v_t = phi_t - phi_{t-1} - mu v_{t-1}.

    Written out from v_0 = phi_0 on, it is the sum of equation 3.
    """
    return similarity - before - memory * last


def unit_outputs(model: nn.Module, layers: Sequence[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """All outputs of each neuron for all the images, as one vector of length one: [C_out, images x positions]."""
    found: dict[str, torch.Tensor] = {}

    def remember(name: str, output: torch.Tensor) -> None:
        found[name] = functional.normalize(output.detach().transpose(0, 1).flatten(1), dim=1)

    with watched(model, layers, remember), in_evaluation_mode(model), torch.no_grad():
        model(images)
    return found


@dataclass
class Equilibrium(Hooks):
    """After each epoch finds the neurons at equilibrium; their weights get no gradient in the next one.

    Args:
        memory: mu_eq.
        epsilon: A neuron whose velocity is below it is at equilibrium.
        images: Of the validation split, on which the outputs are compared.
        layers: The layers, and what their backward pass costs.
    """

    memory: float
    epsilon: float
    images: torch.Tensor = field(repr=False)
    layers: SettledLayers = field(repr=False)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    similarity: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    velocity: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    flops: list[int] = field(default_factory=list, repr=False)
    seconds: list[float] = field(default_factory=list, repr=False)
    began: float = field(default=0.0, repr=False)
    spent: float = field(default=0.0, repr=False)

    def penalty(self, model: nn.Module) -> None:
        """Nothing is added; the backward pass begins now."""
        self.began = time.perf_counter()

    def before_step(self, model: nn.Module, rate: float) -> None:
        """The backward pass has ended; settled neurons are held against momentum and decay."""
        self.spent += time.perf_counter() - self.began
        self.layers.remember_settled()

    def after_step(self, model: nn.Module, rate: float) -> None:
        """Settled neurons stay where they are."""
        self.layers.restore_settled()

    def after_epoch(self, model: nn.Module, dataset: Dataset, epoch: int) -> None:
        """Note what the epoch cost, and compare the outputs with those of the epoch before."""
        self.flops.append(self.layers.backward_flops())
        self.seconds.append(self.spent)
        self.spent = 0.0
        now = unit_outputs(model, self.layers.names, self.images)
        for name, outputs in now.items():
            if name in self.outputs:
                # phi of equation 3: the cosine of the neuron's outputs now and an epoch ago
                phi = (outputs * self.outputs[name]).sum(1)
                zero = torch.zeros_like(phi)
                before, last = self.similarity.get(name, zero), self.velocity.get(name, zero)
                self.velocity[name] = velocity(phi, before, last, self.memory)
                self.similarity[name] = phi
                self.layers.settle(name, self.velocity[name].abs() < self.epsilon)
        self.outputs = now

    def state(self) -> dict[str, Any]:
        """What is compared with, who is settled, and what it cost so far."""
        return {
            "outputs": self.outputs,
            "similarity": self.similarity,
            "velocity": self.velocity,
            "flops": self.flops,
            "seconds": self.seconds,
            "settled": dict(self.layers.settled),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.outputs, self.similarity, self.velocity = state["outputs"], state["similarity"], state["velocity"]
        self.flops, self.seconds = state["flops"], state["seconds"]
        for name, settled in state["settled"].items():
            self.layers.settle(name, settled)


def prune(job: Job, *, memory: float, epsilon: float, images: int) -> Masks:
    """Masks that keep everything, and trained weights; the facts hold what backward passes cost, epoch by epoch.

    `backward_flops` are those of one image, two for each multiply-add, of all layers that can settle;
    `backward_seconds` the measured time of all backward passes of an epoch. In the first two epochs nothing is
    settled: they are what the others are compared with.

    Args:
        job: The network; the ratio is 0.
        memory: mu_eq of equation 3, in [0, 1).
        epsilon: Of the velocity.
        images: How many of the validation split are looked at (the paper: all of it).

    Raises:
        UserError: A ratio above 0.
        ModelError: No linear layer or plain convolution.
    """
    if job.ratio != 0.0:
        raise UserError(f"method neq removes nothing, and the ratio is {job.ratio}", hint="give ratio 0")
    if not 0.0 <= memory < 1.0 or epsilon < 0.0 or images < 1:
        raise UserError(
            f"method neq: memory is {memory}, epsilon {epsilon}, images {images}",
            hint="memory lies in [0, 1), epsilon is at least 0, images at least 1",
        )
    device = next(job.model.parameters()).device
    seen = images_of(job.dataset.validation, images).to(device)
    names = [site.layer for site in find_sites(job.model)]
    settling = SettledLayers(job.model, names, seen[:1])
    if not settling.names:
        raise ModelError(
            f"{type(job.model).__name__} has no layer whose neurons can settle",
            hint="they are linear layers, and convolutions without groups whose padding is zeros",
        )
    with settling as layers:
        hooks = Equilibrium(memory, epsilon, seen, layers)
        job.train("equilibrium", hooks=hooks)
    saved = sum(hooks.seconds[0] - one for one in hooks.seconds[1:])
    facts = {
        "backward_flops": hooks.flops,
        "backward_flops_saved": 1.0 - sum(hooks.flops) / (hooks.flops[0] * len(hooks.flops)),
        "backward_seconds": hooks.seconds,
        "backward_seconds_saved": saved,
        "settled_neurons": {name: int(one.sum()) for name, one in layers.settled.items()},
    }
    kept = {name: torch.ones(len(one), dtype=torch.bool) for name, one in layers.settled.items()}
    return Masks(kept, facts=facts, replaced=job.model.state_dict())
