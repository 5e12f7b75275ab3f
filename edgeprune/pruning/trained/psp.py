"""Parameterized structured pruning: each structure has a trained number, small ones are zero. Start with `prune`.

Schindler et al., Parameterized Structured Pruning for Deep Neural Networks, sections 3.2 and 3.3. A pruned structure
goes on being trained: it comes back when its number leaves the interval of the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeprune.errors import ModelError, UnknownNameError
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.rescaling import rescale
from edgeprune.pruning.trained.structures import bypassed, inner_convolutions, parameter_shape, parts
from edgeprune.training import Hooks

REGULARISERS = ("decay", "l1", "none")
GRADIENTS = ("chain", "printed")
INITIAL = ("gaussian", "ones")
DEVIATION = 0.1  # of the first structure parameters, section 4


class Threshold(torch.autograd.Function):
    """nu(alpha) of equation 3, with the straight-through gradient of equation 4."""

    @staticmethod
    def forward(context: Any, alpha: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
        """alpha where its absolute value is at least epsilon, 0 elsewhere."""
        return torch.where(alpha.abs() < epsilon, torch.zeros_like(alpha), alpha)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of nu is taken for that of alpha."""
        return gradients[0], None


class Substitute(torch.autograd.Function):
    """q = w nu of equation 2, whose gradient of nu is equation 5 as it is printed: the sum of dE/dq, without w."""

    @staticmethod
    def forward(context: Any, weight: torch.Tensor, nu: torch.Tensor) -> torch.Tensor:
        """The weights that the layer computes with."""
        context.save_for_backward(nu)
        return weight * nu

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For w the chain rule, for nu table 1."""
        (nu,) = context.saved_tensors
        return gradients[0] * nu, gradients[0].sum_to_size(nu.shape)


class StructureParameters(nn.Module):
    """The structure parameters of one weight, for one kind of structure or for several at once.

    Args:
        weight: The weight that it stands before.
        structures: Kinds, such as ["layer", "channel"].
        initial: "gaussian" (mean 0, deviation 0.1, as in the paper) or "ones", which leaves a trained layer as it is.
        printed: Whether the gradient is that of equation 5 as printed instead of the chain rule's.
        random: Where the first parameters are drawn from.
    """

    epsilon: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, structures: list[str], initial: str, printed: bool, random: torch.Generator
    ) -> None:
        super().__init__()
        shapes = [parameter_shape(one, weight.shape) for one in structures]
        drawn = [DEVIATION * torch.randn(one, generator=random) for one in shapes]
        first = [torch.ones_like(one) if initial == "ones" else one for one in drawn]
        self.alphas = nn.ParameterList([nn.Parameter(one.to(weight)) for one in first])
        self.printed = printed
        self.register_buffer("epsilon", torch.zeros(len(structures), device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The structured sparse weight of equation 2."""
        for alpha, epsilon in zip(self.alphas, self.epsilon, strict=True):
            nu: torch.Tensor = Threshold.apply(alpha, epsilon)  # type: ignore[no-untyped-call]
            weight = Substitute.apply(weight, nu) if self.printed else weight * nu  # type: ignore[no-untyped-call]
        return weight

    def kept(self) -> list[torch.Tensor]:
        """For each kind of structure, which are not zero, in the parameter's shape."""
        pairs = zip(self.alphas, self.epsilon, strict=True)
        return [(alpha.detach().abs() >= epsilon) & (alpha.detach() != 0) for alpha, epsilon in pairs]


@dataclass
class StructureTraining(Hooks):
    """Equations 6 and 7 for the structure parameters, and their thresholds after every step.

    Args:
        layers: Names of the layers with structure parameters.
        free: Those of them that may go as a whole.
        ratio: Share of structures below the threshold, where `threshold` is None.
        threshold: Epsilon.
        regulariser: "decay" (equation 6), "l1" (equation 7) or "none", which prunes all layers equally.
        strength: Lambda.
    """

    layers: tuple[str, ...]
    free: frozenset[str]
    ratio: float
    threshold: float | None
    regulariser: str
    strength: float

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Structure parameters move with plain momentum."""
        decay = self.strength if self.regulariser == "decay" else 0.0
        alphas = [alpha for one in self._parameters(model) for alpha in one.alphas]
        return [{"params": alphas, "weight_decay": decay, "nesterov": False}]

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """Lambda times the sum of absolute structure parameters, for l1."""
        if self.regulariser != "l1":
            return None
        return (
            self.strength
            * torch.stack([alpha.abs().sum() for one in self._parameters(model) for alpha in one.alphas]).sum()
        )

    def after_step(self, model: nn.Module, rate: float) -> None:
        """Set the thresholds from the parameters as they are now."""
        for place in range(len(self._parameters(model)[0].alphas)):
            self._set_thresholds(model, place)

    def _set_thresholds(self, model: nn.Module, place: int) -> None:
        sizes = [one.alphas[place].detach().abs() for one in self._parameters(model)]
        together = _quantile(torch.cat([one.flatten() for one in sizes]), self.ratio)
        for name, size, one in zip(self.layers, sizes, self._parameters(model), strict=True):
            if self.threshold is not None:
                epsilon = torch.tensor(self.threshold)
            else:
                # a whole layer has one number, of which there is no share
                alone = self.regulariser == "none" and size.numel() > 1
                epsilon = _quantile(size.flatten(), self.ratio) if alone else together
            # a layer that nothing leads past keeps its largest structure
            one.epsilon[place] = epsilon if name in self.free else torch.minimum(epsilon.to(size), size.max())

    def _parameters(self, model: nn.Module) -> list[StructureParameters]:
        return [structure_parameters(model, name) for name in self.layers]


def structure_parameters(model: nn.Module, layer: str) -> StructureParameters:
    """The structure parameters of a layer."""
    found = model.get_submodule(f"{layer}.parametrizations.weight.0")
    if not isinstance(found, StructureParameters):
        raise ModelError(f"layer {layer} has no structure parameters")
    return found


def prune(
    job: Job, *, structure: str, regulariser: str, strength: float, threshold: float | None, initial: str, gradient: str
) -> Masks:
    """Masks of the weight's shape, and the weights with the structure parameters folded in.

    Args:
        job: The network; `ratio` is the share of structures, reached by the threshold after every step.
        structure: "column", "channel", "shape", "filter", "layer" or several joined by "+".
        regulariser: "decay" and "l1" have one threshold for all layers; "none" is fixed sparsity: the same share of
            each layer (section 4.1).
        strength: Lambda; 1e-4 in the paper.
        threshold: Epsilon, 0.1 or 0.2 in the paper; the ratio then comes out of the training, and the facts tell it.
        initial: "gaussian" as in the paper, or "ones".
        gradient: "chain" is the chain rule on equation 2, dE/dalpha = sum of w dE/dq; "printed" is equation 5 as it
            stands, the sum of dE/dq, which is no descent direction of alpha where weights have both signs.

    Raises:
        UnknownNameError: No such structure, regulariser or initial value.
        ModelError: No layer that structures can be pruned of.
    """
    for what, name, allowed in (
        ("regulariser", regulariser, REGULARISERS),
        ("initial", initial, INITIAL),
        ("gradient", gradient, GRADIENTS),
    ):
        if name not in allowed:
            raise UnknownNameError(f"{what} of method psp", name, allowed)
    kinds = parts(structure)
    layers = inner_convolutions(job.model)
    free = bypassed(job.model, layers)
    if kinds == ["layer"]:
        layers = free
    if not layers:
        raise ModelError(
            f"{type(job.model).__name__}: every layer is the only way from input to output",
            hint="layers go from networks with branches; use structure: column or channel here",
        )
    random = torch.Generator().manual_seed(job.seed)
    for name in layers:
        layer = job.model.get_submodule(name)
        numbers = StructureParameters(layer.get_parameter("weight"), kinds, initial, gradient == "printed", random)
        parametrize.register_parametrization(layer, "weight", numbers)
    hooks = StructureTraining(tuple(layers), frozenset(free), job.ratio, threshold, regulariser, strength)
    hooks.after_step(job.model, 0.0)
    job.train("structures", hooks=hooks)
    return _folded(job, layers, kinds)


def _folded(job: Job, layers: list[str], kinds: list[str]) -> Masks:
    """The structure parameters multiplied in; weights before a batch-norm are as large as they were without them."""
    masks: dict[str, torch.Tensor] = {}
    counts = [{"structure": kind, "all": 0, "pruned": 0} for kind in kinds]
    batchnorms = {site.layer: site.batchnorm for site in find_sites(job.model)}
    for name in layers:
        kept = structure_parameters(job.model, name).kept()
        for count, one in zip(counts, kept, strict=True):
            count["all"] += one.numel()  # type: ignore[operator]
            count["pruned"] += int((~one).sum())  # type: ignore[operator]
        layer = job.model.get_submodule(name)
        trained = layer.get_parameter("parametrizations.weight.original").detach()
        mask = torch.ones_like(trained, dtype=torch.bool)
        for one in kept:
            mask &= one
        masks[name] = mask
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        folded = layer.get_parameter("weight").detach().norm()
        behind = batchnorms[name]
        if behind is not None and folded > 0.0:
            rescale(layer, job.model.get_submodule(behind), float((trained * mask).norm() / folded))
    return Masks(masks, facts={"structures": counts}, replaced=job.model.state_dict())


def _quantile(sizes: torch.Tensor, ratio: float) -> torch.Tensor:
    """The threshold below which the share of sizes lies, whole numbers rounded down; all of it stays below 1."""
    return sizes.sort().values[math.floor(ratio * len(sizes) + 1e-9)]
