"""Channels are chosen by LASSO, and the next layer is solved anew from those that stay (He et al. 2017, section 3.1).

What each channel adds to the next layer's output gets a factor; a penalty on their absolute values grows until no more
are left than asked for (equation 2; learned_pruning_models_thesis, equations 2.5 and 2.6, by which the weights of each
channel have length 1). Then the weights of the channels that stay are those that bring the output nearest, by squares,
to what the dense network gives there (equation 4), from what the pruned network gets there by now (section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from sklearn.linear_model import lars_path_gram

from edgeprune.pruning.criteria import layerwise
from edgeprune.pruning.criteria.context import Choice, Network


def choose(network: Network, counts: Mapping[str, int], positions: int = 10) -> Choice:
    """The filters that go, and the next layers' weights solved anew.

    Args:
        network: With data.
        counts: How many filters of each layer go.
        positions: Places sampled of each image; 10 as in the paper.

    Raises:
        UserError: there is no data, or removed filters would not be zero.
    """

    def step(readings: list[layerwise.Reading], count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if count == 0:
            return torch.zeros(readings[0].inputs.shape[1], dtype=torch.bool), {}
        gone = _lasso(readings, count)
        return gone, {one.reader: _solve(one, ~gone) for one in readings}

    return layerwise.choose(network, counts, positions, step)


def _lasso(readings: list[layerwise.Reading], count: int) -> torch.Tensor:
    """bool [C]: the `count` channels that get no factor, or get one last, as the penalty shrinks."""
    channels = readings[0].inputs.shape[1]
    products, targets = torch.zeros(channels, channels).double(), torch.zeros(channels).double()
    for one in readings:
        lengths = one.weight.norm(dim=(0, 2))
        unit = one.weight / torch.where(lengths > 0, lengths, 1.0)[:, None]
        parts = torch.einsum("scp,ocp->cso", one.inputs, unit).flatten(1)
        products += parts @ parts.mT
        targets += parts @ one.outputs.flatten()
    _, _, path = lars_path_gram(targets.numpy(), products.numpy(), n_samples=1, method="lasso")
    factors = torch.from_numpy(path) != 0  # [C, steps of the path]
    keep = channels - count
    within = int((factors.sum(0) <= keep).nonzero().max())
    # on the way from there to no penalty at all the rest come in; a channel that adds nothing never does
    never = factors.shape[1]
    entry = torch.where(factors[:, within:].any(1), factors[:, within:].int().argmax(1), never)
    gone = torch.ones(channels, dtype=torch.bool)
    gone[torch.argsort(entry, stable=True)[:keep]] = False
    return gone


def _solve(reading: layerwise.Reading, kept: torch.Tensor) -> torch.Tensor:
    """The weights [C_out, C, places] that give the nearest outputs, and of all those the nearest to the old ones."""
    inputs = reading.inputs[:, kept].flatten(1)
    old = reading.weight[:, kept].flatten(1)
    change = torch.linalg.lstsq(inputs, reading.outputs - inputs @ old.mT, driver="gelsd").solution.mT
    weight = reading.weight.clone()
    weight[:, kept] = (old + change).reshape(weight[:, kept].shape)
    return weight
