"""Padding of space and of channels, with numbers or with what stands at the border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Decision, Demand, Layout, Vector
from edgeprune.shrinking.forms import CHANNEL_AXIS, Forms
from edgeprune.shrinking.operators.base import Operator, argument, sole_tensor
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.patterns import NONE, Multiples

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Patterns
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Pad(Operator):
    """F.pad and the padding modules; channels that are padded on are constants of the padding's value."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        operand = sole_tensor(node, forms)
        form = None if operand is None else forms[operand]
        padding = _padding(node, module)
        if padding is None or operand is None or form is None or form.axis != CHANNEL_AXIS:
            return None
        # of a rank that the module takes for an unbatched image, axis 1 is no channel axis
        if len(padding.sides) > 2 * form.rank or (module is not None and form.rank != len(padding.sides) // 2 + 2):
            return None
        full = padding.all_sides(form.rank)
        return (operand,) if full[-2:] == [0, 0] and min(full[-4:-2]) >= 0 else None

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        given = operands[0]
        padding, value = self._spec(site), self._spec(site).value
        if padding.mode == "constant" and any(padding.all_sides(site.operand_forms[0].rank)[:-4]):
            given = np.where(given == value, given, np.nan)
        low, high = self._channels(site)
        return np.concatenate([np.full(low, value), given, np.full(high, value)])

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        padding = self._spec(site)
        if padding.mode == "constant" and padding.value != 0.0:
            return None
        inside = patterns.after(site.node, operands[0])
        low, high = self._channels(site)
        return Multiples(
            np.pad(inside.pattern, (low, high), constant_values=NONE), np.pad(inside.coefficient, (low, high))
        )

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        low, _ = self._channels(site)
        inside = slice(low, low + len(operands[0]))
        # a constant that turns into a varying channel at the border has to be there to be padded
        return [Demand.of(decision.exact[inside], physical=decision.keep[inside], present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        low, high = self._channels(site)
        kept = np.flatnonzero(plan.decisions[site.node].keep)
        return np.concatenate([kept[kept < low], operands[0] + low, kept[kept >= site.channels - high]])

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        low, high = self._channels(site)
        layout = surgery.plan.layouts[site.node]
        padding = self._spec(site)
        sides = padding.all_sides(site.operand_forms[0].rank)[:-2]
        sides[-2:] = [int((layout < low).sum()), int((layout >= site.channels - high).sum())]
        operand = surgery.value(site.operands[0])
        if not any(sides):
            return operand
        if padding.mode != "constant":  # these modes take the sides of space alone
            return surgery.call_function(site, F.pad, operand, padding.sides, padding.mode)
        return surgery.call_function(site, F.pad, operand, tuple(sides), "constant", padding.value)

    @staticmethod
    def _spec(site: Site) -> _Padding:
        padding = _padding(site.node, site.module)
        if padding is None:
            raise TypeError(f"{site.name} is no padding")
        return padding

    def _channels(self, site: Site) -> tuple[int, int]:
        low, high = self._spec(site).all_sides(site.operand_forms[0].rank)[-4:-2]
        return low, high


class _Padding(NamedTuple):
    """Sides as F.pad takes them, last axis first; the mode as F.pad names it; the number of the constant mode."""

    sides: tuple[int, ...]
    mode: str
    value: float

    def all_sides(self, rank: int) -> list[int]:
        """Padding of every axis, last axis first, two sides each: the channels at -4 and -3, the batch last."""
        return [*self.sides, *[0] * (2 * rank - len(self.sides))]


_MODES = {"Zero": "constant", "Constant": "constant", "Reflection": "reflect", "Replication": "replicate",
          "Circular": "circular"}  # fmt: skip
_MODULES: dict[type[nn.Module], str] = {
    getattr(nn, f"{name}Pad{rank}d"): mode for name, mode in _MODES.items() for rank in (1, 2, 3)
}


def _padding(node: fx.Node, module: nn.Module | None) -> _Padding | None:
    sides: Any = None
    if module is not None and type(module) in _MODULES and is_plain(module):
        sides, mode, value = module.padding, _MODULES[type(module)], getattr(module, "value", 0.0)
    elif node.op == "call_function" and node.target is F.pad:
        sides, mode = argument(node, 1, "pad", None), argument(node, 2, "mode", "constant")
        value = argument(node, 3, "value", None)
    if not isinstance(sides, list | tuple) or not all(isinstance(side, int) for side in sides):
        return None
    return _Padding(tuple(sides), mode, 0.0 if value is None else float(value))
