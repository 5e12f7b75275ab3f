"""A number before each filter, through which its channel is scaled and closed. Start with `add_gates`.

The gate stands at the batch-norm behind the layer if that reads nothing else, for it scales what comes out; else at
the layer itself, at weight and bias. Folded in, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeprune.pruning.sites import Site


class Gate(nn.Module):
    """Multiplies a parameter by the gate of its filter; weight and bias of a layer share one parameter."""

    def __init__(self, gate: nn.Parameter) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """The value with each filter scaled."""
        return value * self.gate.view(-1, *[1] * (value.dim() - 1))


def add_gates(model: nn.Module, sites: Sequence[Site], *, trained: bool = True) -> dict[str, nn.Parameter]:
    """Put gates of one before all filters of the sites, by the layer's name; those not trained are set from outside."""
    gates: dict[str, nn.Parameter] = {}
    for site in sites:
        layer = model.get_submodule(site.batchnorm or site.layer)
        weight = layer.get_parameter("weight")
        gates[site.layer] = nn.Parameter(weight.new_ones(weight.shape[0]), requires_grad=trained)
        parametrize.register_parametrization(layer, "weight", Gate(gates[site.layer]))
        if isinstance(getattr(layer, "bias", None), nn.Parameter):
            parametrize.register_parametrization(layer, "bias", Gate(gates[site.layer]))
    return gates


def fold_gates(model: nn.Module, sites: Sequence[Site]) -> None:
    """Multiply the gates into the parameters that they stand before."""
    for site in sites:
        layer = model.get_submodule(site.batchnorm or site.layer)
        for name in ("weight", "bias"):
            if parametrize.is_parametrized(layer, name):
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
