"""Structured probabilistic pruning: filters go by a probability that grows with their rank (Wang et al. 2018).

Start with `prune`. A filter that was masked in one step is there again in another, until its probability is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeprune.errors import UserError
from edgeprune.pruning.choosing import choose
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.gates import add_gates, fold_gates
from edgeprune.pruning.trained.job import Job
from edgeprune.training import Hooks


def increments(filters: int, wanted: float, largest: float, bend: float) -> torch.Tensor:
    """What is added to the probabilities by rank, float64 [filters]; rank 0 is the smallest norm (section 3.2).

    A centre-symmetric exponential: A exp(-a r) down to u A at rank N, then 2 u A - A exp(-a (2 N - r)), which crosses
    zero at rank `wanted`; that makes a = (ln 2 - ln u) / wanted and N = -ln(u) / a. Ranks above it lose probability.

    Args:
        filters: How many there are.
        wanted: How many shall go, R N_c in the paper.
        largest: A, at rank 0.
        bend: u, which says how flat the middle is, in (0, 1).

    >>> increments(4, 2.0, 0.05, 0.25).round(decimals=4).tolist()
    [0.05, 0.0177, 0.0, -0.0457]
    """
    ranks = torch.arange(filters, dtype=torch.float64)
    if wanted <= 0:
        return torch.zeros_like(ranks)
    slope = (math.log(2.0) - math.log(bend)) / wanted
    centre = -math.log(bend) / slope
    below = largest * torch.exp(-slope * ranks)
    above = 2 * bend * largest - largest * torch.exp(-slope * (2 * centre - ranks))
    return torch.where(ranks <= centre, below, above)


@dataclass
class Probabilities(Hooks):
    """Draws open gates anew after each step, and moves the probabilities of closing after every `every` steps.

    Args:
        counts: How many filters of each layer shall go.
        largest: A of `increments`.
        bend: u of `increments`.
        every: Steps between two moves; ranks are averaged over them.
        seed: Of what is drawn.
        gates: Those of the model, by layer; 1 is there, 0 is masked in this step.
    """

    counts: dict[str, int]
    largest: float
    bend: float
    every: int
    seed: int
    gates: dict[str, nn.Parameter] = field(repr=False)
    probability: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    ranks: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        self.probability = {name: torch.zeros(len(gate), dtype=torch.float64) for name, gate in self.gates.items()}
        self.ranks = {name: torch.zeros_like(one) for name, one in self.probability.items()}

    @torch.no_grad()
    def after_step(self, model: nn.Module, rate: float) -> None:
        """Rank by the sum of absolute weights, move the probabilities, draw the next step's gates."""
        self.steps += 1
        for name, gate in self.gates.items():
            norms = full_weight(model, name).abs().flatten(1).sum(1).cpu()
            self.ranks[name] += torch.argsort(torch.argsort(norms, stable=True), stable=True)
            if self.steps % self.every == 0:
                self._move(name)
            drawn = torch.rand(len(gate), generator=self.random, dtype=torch.float64)
            gate.copy_((drawn >= self.probability[name]).to(gate))

    def _move(self, name: str) -> None:
        probability, ranks = self.probability[name], self.ranks[name]
        # what has come to one is gone for good, and the rank of the others is one among themselves
        free = probability < 1.0
        wanted = self.counts[name] - int((~free).sum())
        order = torch.argsort(torch.argsort(ranks[free], stable=True), stable=True)
        moved = increments(int(free.sum()), wanted, self.largest, self.bend)[order]
        probability[free] = (probability[free] + (moved if wanted > 0 else 0.0)).clamp(0.0, 1.0)
        ranks.zero_()

    def state(self) -> dict[str, Any]:
        """Probabilities, ranks so far, and where the stream of random numbers is."""
        return {
            "probability": self.probability,
            "ranks": self.ranks,
            "steps": self.steps,
            "random": self.random.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.probability, self.ranks, self.steps = state["probability"], state["ranks"], state["steps"]
        self.random.set_state(state["random"])


def full_weight(model: nn.Module, layer: str) -> torch.Tensor:
    """The layer's weight without its gate."""
    module = model.get_submodule(layer)
    if parametrize.is_parametrized(module, "weight"):
        return model.get_parameter(f"{layer}.parametrizations.weight.original").detach()
    return model.get_parameter(f"{layer}.weight").detach()


def prune(job: Job, *, largest: float, bend: float, every: int) -> Masks:
    """Masks of the filters whose probability came to one, filled up to the ratio by the highest probabilities.

    Args:
        job: The network; the ratio is reached in every layer.
        largest: A, the most that a probability grows at once; 0.05 in the paper.
        bend: u; 0.25 in the paper.
        every: Steps between two moves (the paper: 180, of many more steps).
    """
    if not 0.0 < largest <= 1.0 or not 0.0 < bend < 1.0 or every < 1:
        raise UserError(
            f"method spp: largest is {largest}, bend {bend}, every {every}",
            hint="largest lies in (0, 1], bend in (0, 1), every is at least 1",
        )
    sites = find_sites(job.model)
    gates = add_gates(job.model, sites, trained=False)
    zeros = {name: torch.zeros(len(gate)) for name, gate in gates.items()}
    counts = {name: int(one.sum()) for name, one in choose(zeros, job.ratio, "local").items()}
    hooks = Probabilities(counts, largest, bend, every, job.seed, gates)
    job.train("probabilities", hooks=hooks)
    with torch.no_grad():
        for gate in gates.values():
            gate.fill_(1.0)
    fold_gates(job.model, sites)
    settled = sum(int((one == 1.0).sum()) for one in hooks.probability.values())
    norms = job.norms(gates)
    # of equal probability the smaller norm goes
    largest_norm = {name: float(norms[name].max()) or 1.0 for name in gates}
    scores = {name: 1.0 - hooks.probability[name] + 1e-9 * norms[name] / largest_norm[name] for name in gates}
    return job.filter_masks(sites, choose(scores, job.ratio, job.scope), {"settled_filters": settled})
