"""Forwards: which channels are the same number for every input and every pixel, and which are multiples of one pattern.

Start with `propagate`: one sweep over the sites in the order they run; the rules stand with the operators. Numbers are
float64 whatever the network's type, so that folding them rounds once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Vector, varies
from edgeprune.shrinking.graph import Network
from edgeprune.shrinking.patterns import Multiples, Patterns


@dataclass(frozen=True)
class Knowledge:
    """What is known of each node's channels; arrays are empty where a node has no channels.

    Attributes:
        constants: For each node float64 [C]: the constant of each channel, NaN where it varies.
        multiples: For each node the channels that are multiples of a pattern.
    """

    constants: dict[fx.Node, Vector]
    multiples: dict[fx.Node, Multiples]


def propagate(network: Network, *, drop: bool = False) -> Knowledge:
    """Sweep the network forwards.

    Args:
        network: The traced network.
        drop: Take numbers that biases and shifts leave in channels without an input for zeros.
    """
    known, patterns = Knowledge({}, {}), Patterns()
    for site in network.sites:
        constants = site.operator.constants(site, [known.constants[operand] for operand in site.operands])
        if drop and site.module is not None and any(True for _ in site.module.parameters()):
            constants = np.where(varies(constants), constants, 0.0)
        moved = site.operator.multiples(site, [known.multiples[operand] for operand in site.operands], patterns)
        known.constants[site.node] = constants
        known.multiples[site.node] = Multiples.of_one(constants) if moved is None else moved.where_varying(constants)
    return known
