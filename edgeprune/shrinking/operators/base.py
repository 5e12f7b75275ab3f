"""What the passes ask of an operator: the contract that each kind of node fulfils, and the two commonest answers.

Start with `Operator`: one question of the tracing (`axis`), four of the analysis (`constants`, `multiples`, `widen`,
`demands`), one of the layout, one of the surgery. `Opaque` answers for anything unknown: it needs every channel of
every input. `ChannelWise` answers for operators that treat each channel alone and leave it in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.channels import Decision, Demand, Flags, Layout, Vector, unknown
from edgeprune.shrinking.constant_channels import SAME_SIZE, ImageRule
from edgeprune.shrinking.forms import Form, Forms

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.patterns import Multiples, Patterns
    from edgeprune.shrinking.plan import Plan
    from edgeprune.shrinking.rewrite import Surgery


class Operator(ABC):
    """One kind of node. Operators hold no state: whatever they need stands in the site."""

    is_addition = False
    """Whether the node sums two tensors that may hold different channels."""

    follows_order = False
    """Whether its output's channels stand as its operand's do, in whatever order."""

    chooses_order = False
    """Whether it can make its output's channels in any order: a dense layer."""

    needs_all = ""
    """Why it needs all channels of its input, for the report; empty where it does not."""

    @abstractmethod
    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        """The operands this operator would analyse, or None if the node is not of this kind."""

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        """Where the channels of its output, of this shape, stand; None if only its readers can say."""
        return operands[0].axis

    @abstractmethod
    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        """Forwards: what is known of each output channel, given the same of each operand."""

    def multiples(self, site: Site, operands: Sequence[Multiples], patterns: Patterns) -> Multiples | None:
        """Forwards: which output channels that vary are multiples of a pattern; None if not any."""
        return None

    def widen(self, site: Site, keep: Flags) -> Flags:
        """The smallest set of output channels that holds `keep` and that this operator can make."""
        return keep

    @abstractmethod
    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        """Backwards: what it asks of each operand to make what was decided of its output."""

    @abstractmethod
    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        """Which channels its output really holds, in which order; it must hold all that are kept."""

    @abstractmethod
    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        """Add the shrunk form of the node to the new graph."""

    def reads(self, site: Site, plan: Plan) -> Layout:
        """Channels of its first operand that the shrunk node reads."""
        return plan.layouts[site.operands[0]]

    def order_wanted(self, site: Site, decision: Decision, output: Vector, given: Vector) -> Layout | None:
        """All channels of its operand that it reads, as it would best find them; None if it does not mind."""
        return None

    def reads_any_order(self, site: Site) -> bool:
        """Whether it takes its operands' channels in any order, and its output's order does not depend on theirs."""
        return False

    def takes_bias(self, site: Site) -> bool:
        """Whether it can add a number to each channel of its operand at no cost."""
        return False

    def absorbs(self, site: Site) -> bool:
        """Whether the node can add a constant to each of its output channels at no cost."""
        return False

    def image_rule(self, site: Site) -> ImageRule | None:
        """How its output's sizes follow from its operand's, where numbers can stand for it; None if not told."""
        return None

    def keeps_batch(self, site: Site) -> bool:
        """Whether its output has a row for each sample, in their order, if its operands have."""
        return True


class Opaque(Operator):
    """A node of which nothing is known: all channels of all its inputs are kept as they are."""

    def axis(self, node: fx.Node, operands: Sequence[Form], shape: torch.Size) -> int | None:
        return None

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return ()

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return unknown(site.channels)

    def widen(self, site: Site, keep: Flags) -> Flags:
        return np.ones_like(keep)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return ()

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.flatnonzero(plan.decisions[site.node].keep)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.copy_whole(site)

    def keeps_batch(self, site: Site) -> bool:
        return False


class Boundary(Opaque):
    """An input, an output or a bare parameter of the network: complete by definition."""

    def match(self, node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[fx.Node, ...] | None:
        return () if node.op in ("placeholder", "output", "get_attr") else None


class ChannelWise(Operator):
    """Base of operators with one operand whose output channel c is made of input channel c alone."""

    follows_order = True

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return [Demand.of(decision.exact, physical=decision.keep, present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return operands[0]

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.copy(site)


class Repeated(Operator):
    """Base of operators with one operand that turn each of its channels into a run of channels, such as a flatten."""

    follows_order = True

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return np.repeat(operands[0], site.channels // len(operands[0]))

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        def by_channel(flags: Flags) -> Flags:
            return np.asarray(flags.reshape(len(operands[0]), -1).any(axis=1))

        return [Demand.of(by_channel(decision.exact), physical=by_channel(decision.keep), present=True)]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        run = site.channels // site.operand_forms[0].channels
        return np.asarray((operands[0][:, None] * run + np.arange(run)).reshape(-1))


class PassedBy(Operator):
    """Base of nodes whose readers read the node's operand itself: nothing of the node is left but that it is there."""

    def constants(self, site: Site, operands: Sequence[Vector]) -> Vector:
        return unknown(site.channels)

    def demands(self, site: Site, decision: Decision, output: Vector, operands: Sequence[Vector]) -> Sequence[Demand]:
        return [Demand.of(np.zeros(len(operand), dtype=np.bool_), present=True) for operand in operands]

    def layout(self, site: Site, plan: Plan, operands: Sequence[Layout]) -> Layout:
        return np.zeros(0, dtype=np.int64)

    def rebuild(self, site: Site, surgery: Surgery) -> fx.Node:
        return surgery.value(site.operands[0])


def sole_tensor(node: fx.Node, forms: Forms) -> fx.Node | None:
    """The first argument, if it is the only input of the node with a channel axis."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(first, fx.Node) or not has_channels(first, forms):
        return None
    given = node.all_input_nodes
    alone = len(given) == 1 or all(n is first or forms[n] is None for n in given)
    return first if alone else None


def same_sizes(site: Site) -> ImageRule:
    """The rule of layers that leave the sizes of an image as they are."""
    return [SAME_SIZE] * (0 if site.form is None else site.form.rank - 2)


def has_channels(node: object, forms: Forms) -> bool:
    """Whether the node is a tensor with a channel axis."""
    form = forms[node] if isinstance(node, fx.Node) else None
    return form is not None and form.channels > 0


def argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    """An argument of a call, given by place or by name."""
    if len(node.args) > place:
        return node.args[place]
    return node.kwargs.get(name, default)


def called_name(node: fx.Node) -> str:
    """What a call is named, be it a function or a method."""
    return str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))


def sizes_told(node: fx.Node) -> list[Any]:
    """The sizes that a view is given, in a list of their own or one by one."""
    given: Any = node.args[1:]
    return list(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else list(given)
