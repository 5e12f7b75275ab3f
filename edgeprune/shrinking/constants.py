"""Forwards: which channels are the same number for every input and every pixel, and which number.

One sweep over the sites in the order they run; the rules stand with the operators. Numbers are float64 whatever the
network's type, so that folding them rounds once.
"""

from __future__ import annotations

from torch import fx

from edgeprune.shrinking.channels import Vector
from edgeprune.shrinking.graph import Network


def propagate(network: Network) -> dict[fx.Node, Vector]:
    """For each node float64 [C]: the constant of each channel, NaN where it varies, empty where it has no channels."""
    known: dict[fx.Node, Vector] = {}
    for site in network.sites:
        known[site.node] = site.operator.constants(site, [known[operand] for operand in site.operands])
    return known
