"""Channels are chosen by how much the next layer needs them to tell classes apart (Zhuang et al. 2018, DCP, section 3).

The loss at the next layer is the distance of its output to what the dense network gives there (equation 3), plus the
cross-entropy of a classifier behind it (equation 4), in one sum (equation 5). Beginning with none, the channel whose
weights have the largest gradient of that loss is taken in, again and again (algorithm 2); after each the weights that
are in take some steps down the loss, and the last ones go into the next layer.

Here the classifier is fitted to what the dense network gives at sampled places, and the network itself is not trained
with it before (algorithm 1), since a criterion is to be one shot.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from edgeprune.errors import UserError
from edgeprune.pruning.criteria import layerwise
from edgeprune.pruning.criteria.context import Choice, Network

_FIT_STEPS = 50
_DECAY = 1e-3


def choose(
    network: Network, counts: Mapping[str, int], positions: int = 4, discrimination: float = 1.0, steps: int = 5
) -> Choice:
    """The filters that go, and the next layers' weights as the last steps left them.

    Args:
        network: With data that has a class for each image.
        counts: How many filters of each layer go.
        positions: Places sampled of each image.
        discrimination: Weight of the cross-entropy in the loss.
        steps: Gradient steps after each channel.

    Raises:
        UserError: there is no data, or none with one class an image; or removed filters would not be zero.
    """

    def step(readings: list[layerwise.Reading], count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        channels = readings[0].inputs.shape[1]
        if count == 0:
            return torch.zeros(channels, dtype=torch.bool), {}
        losses = [_Loss(one, discrimination) for one in readings]
        weights = [torch.zeros_like(one.weight) for one in readings]
        taken = torch.zeros(channels, dtype=torch.bool)
        for _ in range(channels - count):
            needs = sum(
                loss.gradient(weight).square().sum((0, 2)) for loss, weight in zip(losses, weights, strict=True)
            )
            taken[int(torch.as_tensor(needs).masked_fill(taken, -1.0).argmax())] = True
            weights = [loss.descend(weight, taken, steps) for loss, weight in zip(losses, weights, strict=True)]
        mended = [torch.where(taken[:, None], new, old.weight) for new, old in zip(weights, readings, strict=True)]
        return ~taken, {one.reader: weight for one, weight in zip(readings, mended, strict=True)}

    return layerwise.choose(network, counts, positions, step)


class _Loss:
    """Equation 5 at one reader: a function of its weights [C_out, C, places], and how to go down it."""

    def __init__(self, reading: layerwise.Reading, discrimination: float) -> None:
        self._reading = reading
        self._discrimination = discrimination
        inputs = reading.inputs.flatten(1)
        # squares alone bend most: along the largest singular value; the step size that can't overshoot them
        bend = float(torch.linalg.matrix_norm(inputs, 2)) ** 2 / len(inputs)
        self._rate = 1.0 / bend if bend > 0.0 else 0.0  # of a layer that gives nothing there is nothing to solve
        if reading.labels.dim() > 1:
            raise UserError(
                f"method dcp tells classes apart by layer {reading.reader}, and an image has a label for each pixel",
                hint="take a method without a classifier of its own, such as channel-pruning or taylor",
            )
        self._classifier = _fit(self._features(reading.outputs), reading.labels)

    def gradient(self, weight: torch.Tensor) -> torch.Tensor:
        """Of the loss by every weight, those that are not in too."""
        weight = weight.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self._of(weight), weight)
        return gradient

    def descend(self, weight: torch.Tensor, taken: torch.Tensor, steps: int) -> torch.Tensor:
        """The weights that are in, some steps later; the others stay 0."""
        fresh = taken & (weight == 0.0).all(2).all(0)
        # a channel that has just come in begins with what it was read by
        weight = torch.where(fresh[:, None], self._reading.weight, weight)
        for _ in range(steps):
            weight = weight - self._rate * torch.where(taken[:, None], self.gradient(weight), 0.0)
        return weight

    def _of(self, weight: torch.Tensor) -> torch.Tensor:
        given = torch.einsum("scp,ocp->so", self._reading.inputs, weight)
        distance = 0.5 * (given - self._reading.outputs).square().sum(1).mean()
        slopes, offsets = self._classifier
        scores = self._features(given) @ slopes + offsets
        return distance + self._discrimination * functional.cross_entropy(scores, self._reading.labels)

    def _features(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(outputs + self._reading.bias)


def _fit(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes [features, classes] and offsets of a linear classifier, by its cross-entropy."""
    classes = int(labels.max()) + 1
    slopes = torch.zeros(features.shape[1], classes, dtype=features.dtype, requires_grad=True)
    offsets = torch.zeros(classes, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, offsets], max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ slopes + offsets, labels) + _DECAY * slopes.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return slopes.detach(), offsets.detach()
