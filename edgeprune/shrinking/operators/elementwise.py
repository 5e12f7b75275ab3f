"""Two tensors in, one function of each pair of numbers: gates, differences, sums of unequal shapes, bare parameters.

Start with `Elementwise.match`. The commonest is the gate of squeeze-and-excitation, x [N, C, H, W] * g [N, C, 1, 1].
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Vector, varies
from edgeprune.shrinking.forms import Form, Forms
from edgeprune.shrinking.operators.aligned import Aligned
from edgeprune.shrinking.patterns import NONE, ONE, Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.rewrite import Surgery

_PRODUCTS: frozenset[Any] = frozenset({operator.mul, torch.mul, torch.multiply, "mul", "multiply"})
_FUNCTIONS: frozenset[Any] = _PRODUCTS | {
    operator.add, torch.add, "add", operator.sub, torch.sub, torch.subtract, "sub", "subtract",
    operator.truediv, torch.div, torch.divide, "div", "divide",
    torch.maximum, torch.minimum, "maximum", "minimum",
}  # fmt: skip


class Elementwise(Aligned):
    """a * b, a / b, a - b, a + b and the larger or smaller of them; one may be broadcast over space or channels."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        if node.op not in ("call_function", "call_method") or node.target not in _FUNCTIONS:
            return None
        operands = tuple(x for x in node.args[:2] if isinstance(x, fx.Node))
        if len(operands) != 2 or set(operands) != set(node.all_input_nodes):
            return None
        out = forms[node]
        given = [form for form in map(forms.get, operands) if form is not None]
        if out is None or len(given) != 2 or _common_axis(given, out.rank) is None:
            return None
        return operands

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return _common_axis(operands, len(shape))

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        given = [operand if len(operand) else np.full(1, np.nan) for operand in operands]
        numbers = [torch.from_numpy(np.where(varies(operand), 1.0, operand)) for operand in given]
        target: Any = site.node.target
        target = getattr(torch.Tensor, target) if isinstance(target, str) else target
        result = target(*numbers, **site.node.kwargs).numpy()
        result = np.where(varies(given[0]) | varies(given[1]) | ~np.isfinite(result), np.nan, result)
        if site.node.target in _PRODUCTS:
            result = np.where((given[0] == 0.0) | (given[1] == 0.0), 0.0, result)
        return np.asarray(result, dtype=np.float64)

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        """A pattern times a constant is a multiple of the pattern."""
        if site.node.target not in _PRODUCTS or any(len(each.pattern) != site.channels for each in operands):
            return None
        one, other = operands
        steady = [each.pattern == ONE for each in operands]
        known = (one.pattern != NONE) & (other.pattern != NONE) & (steady[0] | steady[1])
        pattern = np.where(known, np.where(steady[0], other.pattern, one.pattern), NONE)
        return Multiples(pattern, np.where(known, one.coefficient * other.coefficient, 0.0))

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.call_again(site, self.place(site, surgery))


def _common_axis(operands: Sequence[Form], rank: int) -> int | None:
    """The axis of the result where the channels of all operands stand, or None if they do not fit each other."""
    widest = max(operands, key=lambda form: form.channels)
    axis = widest.axis + rank - widest.rank
    for form in operands:
        own = axis - (rank - form.rank)
        size = form.shape[own] if 0 <= own < form.rank else 1
        fits = form.axis == own and form.channels == widest.channels
        if not fits and (size != 1 or form.channels > 1):
            return None
    return axis if widest.channels else None
