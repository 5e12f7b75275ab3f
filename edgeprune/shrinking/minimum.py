"""The least that two-way connectivity leaves of a masked network, by the papers' own method: start with `minimum`.

`gradient` finds the connected kernels by null gradients, with no rule of the analysis that shrinks, so this is what a
shrunk network is measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgeprune.shrinking.channels import Flags
from edgeprune.shrinking.gradient import connectivity
from edgeprune.shrinking.graph import Site, trace
from edgeprune.shrinking.size import pixels


@dataclass(frozen=True)
class Minimum:
    """Parameters, multiply-adds for the example, and how many parameters and multiply-adds carriers may add.

    A carrier is one constant channel more in each tensor that a zero-bordered layer may read; what every layer then
    costs more is the allowance, with a bias for layers that have none.
    """

    params: int
    macs: int
    carrier_params: int
    carrier_macs: int


def minimum(masked: nn.Module, example: Tensor) -> Minimum:
    """What is left if a layer costs its connected outputs times its connected inputs, group by group; classes stay.

    Args:
        masked: A network in eval mode with zeroed filters, kernels or gammas.
        example: float [N, C, H, W]: what it takes; only the shape counts.

    Raises:
        ShrinkError: An operator that the papers' method has no rule for.
    """
    network = trace(masked, (example,))
    found = connectivity(network, (example,))
    alive, total = found.alive, np.zeros(4, dtype=np.int64)
    counted: set[str] = set()
    scaled: dict[str, tuple[Site, Flags]] = {}
    last = [site for site in network.sites if site.name in found.kernels][-1]
    for site in network.sites:
        if site.name in found.kernels:
            weights, rest, carried, biases = _cost(site.module, found.kernels[site.name], site is last)
            total += [0, weights * pixels(site), 0, carried * pixels(site)]
            total += [0, 0, 0, 0] if site.name in counted else [weights + rest, 0, carried + biases, 0]
            counted.add(site.name)
        elif site.form is not None and (site.module is not None or isinstance(site.tensor, nn.Parameter)):
            earlier = scaled[site.name][1] if site.shared and site.name in scaled else False
            scaled[site.name] = site, alive[site.node] | earlier
    for site, channels in scaled.values():
        carried = 2 if isinstance(site.module, nn.modules.batchnorm._BatchNorm) else 0
        total += [_scales(site, channels), 0, carried, 0]
    return Minimum(*map(int, total))


def _scales(site: Site, alive: Flags) -> int:
    """Numbers that scale and shift the channels that are alive; a mean over channels takes all that it is over."""
    module = site.module
    if module is None:
        return 0 if site.tensor is None else site.tensor.numel() // max(len(alive), 1) * int(alive.sum())
    if isinstance(module, nn.LayerNorm):
        alive = np.full_like(alive, alive.any())
    elif isinstance(module, nn.GroupNorm):
        alive = np.repeat(alive.reshape(module.num_groups, -1).any(axis=1), len(alive) // module.num_groups)
    numbers = sum(int(parameter.numel()) for parameter in module.parameters())
    one = isinstance(module, nn.PReLU) and module.num_parameters == 1
    return numbers if one else numbers // max(len(alive), 1) * int(alive.sum())


def _cost(layer: Any, kernels: Flags, every_output: bool) -> tuple[int, int, int, int]:
    """Weights and biases that are connected, and how many more of each constants may need."""
    groups = kernels.reshape(getattr(layer, "groups", 1), -1, kernels.shape[1])
    outputs, inputs = groups.any(axis=2).sum(axis=1), groups.any(axis=1).sum(axis=1)
    if every_output:
        outputs = np.array([len(kernels)])
    taps, bias = layer.weight[0, 0].numel(), int(layer.bias is not None)
    weights = int((outputs * inputs).sum()) * taps
    # groups have channels of their own, so there constants are not merged
    carried = int((outputs + inputs + 1).sum()) * taps if len(groups) == 1 else 0
    # a layer without a bias may get one, to fold constants into
    return weights, int(outputs.sum()) * bias, carried, 1 if bias else int(outputs.sum()) + 1
