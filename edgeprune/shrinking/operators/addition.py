"""The sum of two tensors of one shape, as in every residual block: see `edgeprune.shrinking.additions`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.additions import Gather, IndexAdd, addition_at
from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector, varies
from edgeprune.shrinking.forms import Forms
from edgeprune.shrinking.operators.aligned import gives_shape, sizes_may_differ
from edgeprune.shrinking.operators.base import Operator, has_channels

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Add(Operator):
    """a + b, torch.add(a, b), a.add(b), with operands of the output's own shape."""

    is_addition = True

    def reads_any_order(self, site: Site) -> bool:
        return True

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        function = node.op == "call_function" and node.target in (operator.add, torch.add)
        if not function and not (node.op == "call_method" and node.target == "add"):
            return None
        operands = tuple(x for x in node.args if isinstance(x, fx.Node) and has_channels(x, forms))
        same = len(operands) == len(node.args) == 2 and not node.kwargs
        return operands if same and forms[operands[0]] == forms[operands[1]] else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return operands[0] + operands[1]

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        computed = decision.exact & varies(output)
        # an output that holds constants alone still takes its batch and image size from somewhere
        alone = not computed.any()
        needed = gives_shape(site) if sizes_may_differ(site) else [False, False]
        if alone and not any(needed):
            needed = [True, False]
        return [Demand.of(computed, present=present) for present in needed]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        addition = addition_at(site, plan)
        return operands[0][:0] if addition is None else addition.layout

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        plan = surgery.plan
        addition = addition_at(site, plan)
        if addition is None:
            raise TypeError(f"{site.name} is no live addition")
        widths = [len(plan.layouts[operand]) for operand in site.operands]
        plain = [addition.is_plain(place, width) for place, width in enumerate(widths)]
        giving = [place for place in (0, 1) if not addition.is_absent(place)] or [0 if widths[0] else 1]
        gone = [place for place in (0, 1) if place not in giving]
        absorbed = any(operand in plan.shifts for operand in site.operands)
        lost = [np.zeros(len(addition.layout)) if absorbed else lost for lost in addition.lost]
        offset = lost[gone[0]] if gone and lost[gone[0]].any() else None
        values = [surgery.value(site.operands[place]) for place in giving]
        if offset is None and all(plain[place] for place in giving):
            return values[0] if len(giving) == 1 else surgery.call_function(site, operator.add, *values)
        gathers = [
            None if plain[place] else _gather(site, addition.sources[place], lost[place], widths[place], surgery)
            for place in giving
        ]
        constant = None if offset is None else surgery.constant_channels(offset, site.operand_forms[0])
        module = IndexAdd(gathers[0], gathers[1] if len(gathers) == 2 else None, constant)
        return surgery.call_new(site, module, *values)


def _gather(site: Site, source: Layout, lost: Vector, width: int, surgery: Surgery) -> Gather:
    absent = source < 0
    varied = np.count_nonzero(lost) > 0
    numbers = np.unique(lost[absent]) if varied else lost[absent][:1]
    index = np.where(absent, width + np.searchsorted(numbers, lost) if varied else width, source)
    fill = surgery.constant_channels(numbers, site.operand_forms[0]) if len(numbers) else None
    return Gather(torch.from_numpy(index).to(surgery.device), width, fill, axis=site.operand_forms[0].axis)
