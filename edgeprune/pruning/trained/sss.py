"""Sparse structure selection: gates that a proximal gradient closes (Huang and Wang 2018). Start with `prune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgeprune.errors import UserError
from edgeprune.pruning.choosing import choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.gates import add_gates, fold_gates
from edgeprune.pruning.trained.job import Job
from edgeprune.training import Hooks


@dataclass
class ProximalGates(Hooks):
    """Moves the gates by the paper's form of accelerated proximal gradient (its equations 9 to 11).

        z = gate - rate * gradient
        v = S(z, rate * strength) - gate + momentum * v
        gate = S(z, rate * strength) + momentum * v

    with the soft threshold S(z, a) = sign(z) max(|z| - a, 0). The optimizer leaves the gates alone. Once the share
    `enough` of all gates is closed the strength is zero, so that a strength for long trainings does not close all.
    """

    strength: float
    momentum: float
    enough: float
    gates: dict[str, nn.Parameter] = field(repr=False)
    velocity: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def before_step(self, model: nn.Module, rate: float) -> None:
        """Take the gradients before the optimizer sees them, and make the proximal step."""
        closed = torch.cat([gate.detach() == 0 for gate in self.gates.values()])
        strength = self.strength if float(closed.double().mean()) < self.enough else 0.0
        for name, gate in self.gates.items():
            if gate.grad is None:
                continue
            with torch.no_grad():
                shrunk = soft_threshold(gate - rate * gate.grad, rate * strength)
                velocity = shrunk - gate + self.momentum * self.velocity.get(name, torch.zeros_like(gate))
                gate.copy_(shrunk + self.momentum * velocity)
            self.velocity[name] = velocity
            gate.grad = None

    def state(self) -> dict[str, Any]:
        """The velocities; the gates are in the model's state."""
        return {"velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.velocity = {name: one.to(self.gates[name].device) for name, one in state["velocity"].items()}


def soft_threshold(values: torch.Tensor, threshold: float) -> torch.Tensor:
    """Each value moved towards zero by the threshold, and no further.

    >>> soft_threshold(torch.tensor([3.0, -0.5, -2.0]), 1.0)
    tensor([ 2., -0., -1.])
    """
    return values.sign() * (values.abs() - threshold).clamp(min=0.0)


def prune(job: Job, *, strength: float, gate_momentum: float, fill: bool) -> Masks:
    """Train weights and gates together; filters whose gate is closed go.

    Args:
        job: The network.
        strength: Gamma, of the l1 norm of the gates.
        gate_momentum: Mu of the accelerated step; 0.9 in the paper.
        fill: Whether the ratio of filters goes, those of smallest gates; if not, those go whose gate is exactly zero
            (a layer keeps one filter at least). The facts tell how many those are.
    """
    if strength < 0.0 or not 0.0 <= gate_momentum < 1.0:
        raise UserError(
            f"method sss: strength is {strength}, gate_momentum {gate_momentum}",
            hint="strength is at least 0, gate_momentum in [0, 1)",
        )
    sites = find_sites(job.model)
    gates = add_gates(job.model, sites)
    job.train("gates", hooks=ProximalGates(strength, gate_momentum, job.ratio if fill else 1.0, gates))
    sizes = {name: gate.detach().abs().cpu() for name, gate in gates.items()}
    closed = {name: size == 0 for name, size in sizes.items()}
    facts = {"closed_gates": sum(int(one.sum()) for one in closed.values())}
    fold_gates(job.model, sites)
    if fill:
        return job.filter_masks(sites, choose(sizes, job.ratio, job.scope, normalise=False), facts)
    for one in closed.values():
        if bool(one.all()):
            one[0] = False
    return job.filter_masks(sites, closed, facts)
