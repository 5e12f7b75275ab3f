"""Tensors that hold numbers alone: no layer has to compute them, only their sizes follow from other tensors'.

Start with `sizes_from`. A tensor is settled where each of its channels that matters is a known number. Features [N, C]
take their batch from the network's input, so that nothing of the way to them is left; images take their sizes from the
operand of the layer that made them, by its rule. Such numbers are no parameters: what they were made from was cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Decision, Vector, varies
from edgeprune.shrinking.constant_channels import ConstantChannels
from edgeprune.shrinking.forms import CHANNEL_AXIS

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Network, Site
    from edgeprune.shrinking.rewrite import Surgery


def sizes_from(site: Site, decision: Decision, output: Vector, network: Network) -> fx.Node | None:
    """The node that tells the sizes of this tensor, if the tensor holds numbers alone and has not to be computed."""
    form = site.form
    if form is None or site.shared or not site.operands or not decision.live or not form.channels:
        return None
    if np.count_nonzero(decision.exact & varies(output)):
        return None
    if form.rank == CHANNEL_AXIS + 1 and form.axis == CHANNEL_AXIS:
        source = _batch_of(site, network)
        if source is not None:
            return source
    return None if site.operator.image_rule(site) is None else site.operands[0]


def settle_numbers(site: Site, surgery: Surgery, source: fx.Node) -> fx.Node:
    """Add the numbers of a tensor that `sizes_from` found to hold nothing else."""
    plan = surgery.plan
    layout, decision, output = plan.layouts[site.node], plan.decisions[site.node], plan.constants[site.node]
    if site.form is None:
        raise TypeError(f"{site.name} is no tensor")
    numbers = np.where(decision.valued & ~varies(output), output, 0.0)[layout]
    rule = site.operator.image_rule(site) or ()
    module = ConstantChannels(surgery.constant_channels(numbers, site.form), site.form.axis, rule)
    return surgery.call_new(site, module, surgery.value(source), kind="constant")


def _batch_of(site: Site, network: Network) -> fx.Node | None:
    """The network's input, if it is one tensor and its batch is this tensor's whatever comes in."""
    given = [one for one in network.sites if one.node.op == "placeholder" and one.form is not None]
    if len(given) != 1 or given[0].form is None or site.form is None or given[0].form.shape[0] != site.form.shape[0]:
        return None
    while site is not given[0]:
        before = [network.by_node[operand] for operand in site.operands if network.by_node[operand].form is not None]
        batched = [one for one in before if one.form is not None and one.form.batched]
        if not batched or not site.operator.keeps_batch(site):
            return None
        site = batched[0]
    return site.node
