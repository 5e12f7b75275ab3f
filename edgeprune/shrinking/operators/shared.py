"""A layer that is called several times: one set of weights serves tensors of which different channels are left.

Start with `agreed_inputs`. An input goes where no call needs it, and where it is the same number at every call that
needs it, which then goes into the bias. What one call lacks of the inputs that are left is appended there as numbers
(`aligned.filled`), so nothing before the layer has to compute rows of zeros for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.shrinking.channels import Decision, Flags, Vector, nonzero_constant, varies

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan


@dataclass(frozen=True)
class Inputs:
    """The inputs of a layer that is called several times.

    Attributes:
        read: bool [in]: those that the shrunk layer reads at each of its calls.
        folded: float64 [in]: the numbers that go into the bias, zero for all others.
    """

    read: Flags
    folded: Vector


def needed_inputs(site: Site, decision: Decision) -> Flags:
    """bool [in]: the inputs with any weight to an output whose value matters at this call."""
    kernels = site.kernels
    groups = int(getattr(kernels.layer, "groups", 1))
    used = (kernels.connected & decision.exact[:, None]).reshape(groups, -1, kernels.connected.shape[1])
    return np.asarray(used.any(axis=1).reshape(-1), dtype=np.bool_)


def agreed_inputs(site: Site, plan: Plan) -> Inputs:
    """What all calls of the site's layer together need."""
    calls = [call for call in plan.network.sites if call.shared and call.name == site.name]
    calls = [call for call in calls if plan.decisions[call.node].live]
    inputs = len(plan.constants[site.operands[0]])
    if any(call.operator is not site.operator for call in calls):  # a call that is not understood takes the layer whole
        return Inputs(np.ones(inputs, dtype=np.bool_), np.zeros(inputs))
    needed, read, number = np.zeros(inputs, dtype=np.bool_), np.zeros(inputs, dtype=np.bool_), np.zeros(inputs)
    for call in calls:
        wanted, given = needed_inputs(call, plan.decisions[call.node]), plan.constants[call.operands[0]]
        read |= wanted & (varies(given) | (needed & (given != number)))
        number = np.where(wanted & ~needed, given, number)
        needed |= wanted
    if site.kernels.sees_border:
        read |= needed & nonzero_constant(number)
    return Inputs(read, np.where(needed & ~read, number, 0.0))
