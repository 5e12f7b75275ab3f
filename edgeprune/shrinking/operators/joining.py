"""Concatenation along another axis than the channels, such as a class token in front of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Vector
from edgeprune.shrinking.forms import Forms
from edgeprune.shrinking.operators.aligned import Aligned
from edgeprune.shrinking.operators.base import argument

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.rewrite import Surgery


class Join(Aligned):
    """torch.cat of tokens or of pixels: all parts need the same channels."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.op != "call_function" or node.target not in (torch.cat, torch.concat):
            return None
        parts, axis = argument(node, 0, "tensors", None), argument(node, 1, "dim", 0)
        if not isinstance(parts, list | tuple) or not isinstance(axis, int):
            return None
        found = [forms[part] for part in parts if isinstance(part, fx.Node)]
        form = found[0] if found else None
        if form is None or len(found) != len(parts) or not form.channels or axis % form.rank == form.axis:
            return None
        same = all(
            x is not None and (x.axis, x.rank, x.channels) == (form.axis, form.rank, form.channels) for x in found
        )
        return tuple(part for part in parts if isinstance(part, fx.Node)) if same else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        same = np.all([operand == operands[0] for operand in operands], axis=0)
        return np.where(same, operands[0], np.nan)

    def shapes(self, site: Site) -> list[bool]:
        return [True] * len(site.operands)

    def keeps_batch(self, site: Site) -> bool:
        axis: int = argument(site.node, 1, "dim", 0)
        return axis % site.operand_forms[0].rank != 0

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        axis = argument(site.node, 1, "dim", 0)
        return surgery.call_function(site, torch.cat, self.place(site, surgery), axis)
