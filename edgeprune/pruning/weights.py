"""Single weights that go, wherever they are: unstructured magnitude pruning. Start with `mask_weights`.

A weight goes if its absolute value is below a factor times the standard deviation of all weights, over the network or
over its own layer (pruning_mini_project, section I.A, after Han et al. 2015). Of all factors the one is taken at which
the asked-for share of weights is gone: with one threshold for the network that is the share itself, with one for each
layer the layers share the factor and not the ratio.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError, WeightsError


def mask_weights(model: nn.Module, ratio: float, layer_wise: bool) -> tuple[dict[str, torch.Tensor], float]:
    """The masks, and the factor that they come from.

    Args:
        model: Weights of its convolutions and linear layers may go; biases and normalisations stay.
        ratio: Share of those weights to remove, in [0, 1); rounded down to whole weights.
        layer_wise: Whether each layer's threshold is the factor times its own deviation.

    Returns:
        For each layer bool of its weight's shape, True for weights that are kept; and the factor, at least 0.

    Raises:
        ModelError: the model has no such layer.
        WeightsError: a layer holds NaN or infinity.
    """
    weights = _weights(model)
    deviation = float(torch.cat([one.flatten() for one in weights.values()]).std(correction=0))
    units = {
        name: weight.abs() / _positive(float(weight.std(correction=0)) if layer_wise else deviation)
        for name, weight in weights.items()
    }
    everything = torch.cat([one.flatten() for one in units.values()])
    count = math.floor(ratio * len(everything) + 1e-9)
    if count == 0:
        return {name: torch.ones_like(one, dtype=torch.bool) for name, one in units.items()}, 0.0
    gone = torch.zeros(len(everything), dtype=torch.bool)
    # of equal weights the one that comes first goes first
    order = torch.argsort(everything, stable=True)
    gone[order[:count]] = True
    parts = torch.split(~gone, [one.numel() for one in units.values()])
    kept = {name: part.view_as(one) for (name, one), part in zip(units.items(), parts, strict=True)}
    return kept, float(everything[order[count]])


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """float64 weights of every convolution and linear layer."""
    found: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            found[name] = layer.weight.detach().double().cpu()
            if not bool(torch.isfinite(found[name]).all()):
                raise WeightsError(f"layer {name} holds NaN or infinity", hint="the training diverged: train again")
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no layer to prune", hint="it takes a convolution or a linear layer"
        )
    return found


def _positive(deviation: float) -> float:
    """A layer whose weights are all alike has no deviation; its weights are then compared as they are."""
    return deviation if deviation > 0.0 else 1.0
