"""Parameters that several modules share, such as the weights of an embedding and of a classifier.

Start with `tie`. Shrinking cuts each layer for itself; where the same rows and columns are left of a shared parameter,
and nothing was folded into one of them alone, it is shared again and goes on training as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from edgeprune.shrinking.copying import every_module
from edgeprune.shrinking.operators.kernels import LAYERS
from edgeprune.shrinking.plan import Plan

_Cut = tuple[bytes, ...]


def shared_names(model: nn.Module) -> list[list[str]]:
    """Names of each parameter that several modules hold."""
    tables = [module._parameters.values() for module in every_module(model)]
    held = [id(parameter) for table in tables for parameter in table if parameter is not None]
    if len(held) == len(set(held)):
        return []
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def tie(masked: nn.Module, plan: Plan, shrunk: fx.GraphModule) -> list[list[str]]:
    """Share again what the masked network shares and shrinking left the same of; `shrunk` is changed.

    Returns:
        The `shared_names` of the masked network.
    """
    groups = shared_names(masked)
    if not groups:
        return groups
    left = dict(shrunk.named_parameters(remove_duplicate=False))
    cuts = dict(_cuts(plan))
    for names in groups:
        first: dict[Any, nn.Parameter] = {}
        for name in names:
            parameter = left.get(name)
            if parameter is None:
                continue
            kept = first.setdefault((cuts.get(name), parameter.shape), parameter)
            if kept is not parameter and torch.equal(kept, parameter):
                owner, _, leaf = name.rpartition(".")
                shrunk.get_submodule(owner)._parameters[leaf] = kept
    return groups


def _cuts(plan: Plan) -> Iterator[tuple[str, _Cut]]:
    """For each parameter that is left: which rows, and of weights which columns."""
    functional = plan.network.root.functional
    for site in plan.network.sites:
        if not plan.decisions[site.node].live:
            continue
        rows = plan.layouts[site.node].tobytes()
        if site.node.op == "get_attr":
            yield str(site.node.target), (rows,)
        elif site.module is not None:
            reads = isinstance(site.module, LAYERS) and bool(site.operands)
            columns = (site.operator.reads(site, plan).tobytes(),) if reads else ()
            for role in site.module._parameters:
                name = functional.get(site.name, {}).get(role, f"{site.name}.{role}")
                yield name, (rows, *columns) if role == "weight" else (rows,)
