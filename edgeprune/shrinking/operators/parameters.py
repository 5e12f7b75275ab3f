"""Parameters and buffers that forward uses by themselves: layer scales, class tokens, position embeddings.

Start with `BareParameter`. It is cut along its channel axis, keeps its name and goes on training; zeros in it remove
the channels that it multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, unknown
from edgeprune.shrinking.forms import Form, Forms
from edgeprune.shrinking.operators.base import Operator

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class BareParameter(Operator):
    """A tensor of the model with a channel axis, read by its name."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return () if node.op == "get_attr" and forms[node] is not None else None

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        if site.form is None or site.tensor is None or not site.tensor.is_floating_point():
            return unknown(site.channels)
        if not site.channels:
            return np.zeros(0)
        numbers = site.tensor.detach().double().cpu().movedim(site.form.axis, 0).reshape(site.channels, -1)
        first = numbers[:, 0] if numbers.shape[1] else torch.full((site.channels,), torch.nan)
        uniform = (numbers == first[:, None]).all(dim=1)
        return np.asarray(torch.where(uniform, first, torch.nan).numpy())

    def widen(self, site: Site, keep: Flags) -> Flags:
        """All channels, where the same tensor is read elsewhere too."""
        name = str(site.node.target)
        owner = name.rpartition(".")[0]
        others = (node for node in site.node.graph.nodes if node is not site.node)
        shared = any(
            str(node.target) == name if node.op == "get_attr" else node.op == "call_module" and node.target == owner
            for node in others
        )
        return np.ones_like(keep) if shared else keep

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return ()

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        layout = surgery.plan.layouts[site.node]
        if site.form is None or site.tensor is None or len(layout) == site.channels:
            return surgery.copy(site)
        index = torch.from_numpy(layout).to(site.tensor.device)
        cut: Tensor = site.tensor.detach().index_select(site.form.axis, index)
        if isinstance(site.tensor, nn.Parameter):
            cut = nn.Parameter(cut, requires_grad=site.tensor.requires_grad)
        return surgery.read_attribute(site, cut)
