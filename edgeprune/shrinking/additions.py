"""Indexation-addition: the sum of two tensors that hold different channels.

`effects_of_structured_pruning_2022` (section 3.2, equation 1): c_k = a[i_k] + b[j_k], where a channel that an operand
does not hold counts as nothing. Start with `addition_at`, which settles one site; `IndexAdd` is the module that runs.
An operand that holds the output's channels in order is added as it is; another is gathered once with a
constant channel appended for each number that stands in for channels it lacks. Where an earlier layer that only this
addition reads can add those numbers to its bias, they are zero; an operand that is gone leaves one number a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.channels import Layout, Vector, varies
from edgeprune.shrinking.forms import CHANNEL_AXIS

if TYPE_CHECKING:
    from edgeprune.shrinking.graph import Site
    from edgeprune.shrinking.plan import Plan


class Gather(nn.Module):
    """Pick channels by index, from the input's channels followed by constant ones.

    Args:
        index: int64 [K], each in 0..channels + len(fill) - 1.
        channels: Channels of the input [N, channels, ...].
        fill: [1, F, 1, ...] in the input's type and rank: the constants; not trained.
        axis: Where the channels stand.

    Example:
        >>> Gather(torch.tensor([1, 2]), 2, torch.tensor([[0.5]]))(torch.tensor([[5.0, 7.0]]))
        tensor([[7.0000, 0.5000]])
    """

    channels: int
    axis: int
    appends_zeros: bool
    run: tuple[int, int, int, int] | None
    index: Tensor
    fill: Tensor | None

    def __init__(self, index: Tensor, channels: int, fill: Tensor | None = None, *, axis: int = CHANNEL_AXIS) -> None:
        super().__init__()
        zeros = fill is not None and fill.numel() == 1 and fill.item() == 0.0
        run = _run(index.cpu().numpy(), channels) if fill is None or zeros else None
        # past nn.Module.__setattr__ and register_buffer, which take longer than all the rest
        vars(self).update(channels=channels, axis=axis, appends_zeros=zeros, run=run)
        self._buffers.update(index=index, fill=None if zeros else fill)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, ...] to [N, K, ...]; one run of channels is cut out and padded, without an index."""
        if self.run is not None:
            low, start, length, high = self.run
            if length < self.channels:
                x = x.narrow(self.axis, start, length)
            return F.pad(x, (0, 0) * (x.dim() - 1 - self.axis) + (low, high)) if low or high else x
        if self.appends_zeros:
            x = F.pad(x, (0, 0) * (x.dim() - 1 - self.axis) + (0, 1))
        elif self.fill is not None:
            sizes = [-1 if axis == self.axis else x.size(axis) for axis in range(self.fill.dim())]
            x = torch.cat([x, self.fill.expand(sizes)], self.axis)
        return torch.index_select(x, self.axis, self.index)

    def extra_repr(self) -> str:
        """Widths before and after."""
        return f"{self.channels} -> {len(self.index)}"


def _run(index: Layout, channels: int) -> tuple[int, int, int, int] | None:
    """The index as zeros before, first channel, number of channels, zeros after; None if it is not one run."""
    (picked,) = (index < channels).nonzero()
    if not len(picked):
        return None
    low, start, length = int(picked[0]), int(index[picked[0]]), len(picked)
    if int(picked[-1]) - low + 1 != length:
        return None
    part = index[low : low + length]
    if np.count_nonzero(part[1:] - part[:-1] != 1):
        return None
    return low, start, length, len(index) - low - length


class IndexAdd(nn.Module):
    """c_k = a[i_k] + b[j_k] + offset_k, effects_of_structured_pruning_2022, equation 1.

    Args:
        left: How the first operand is gathered, or None if it is taken as it is.
        right: The same of the second.
        offset: [1, K, 1, ...] in the operands' type, or None.
    """

    offset: Tensor | None

    def __init__(self, left: Gather | None, right: Gather | None, offset: Tensor | None) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.register_buffer("offset", offset)

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        """The sum [N, K, ...] of a [N, A, ...] and b [N, B, ...]; without b, a alone is spread."""
        if self.left is not None:
            a = self.left(a)
        if b is not None:
            a = a + (b if self.right is None else self.right(b))
        return a if self.offset is None else a + self.offset


@dataclass(frozen=True)
class Addition:
    """One addition, settled.

    Attributes:
        layout: int64 [K]: the output's channels.
        sources: For each operand int64 [K]: the place of each output channel in it, -1 where it has none to give.
        lost: For each operand float64 [K]: the constants of channels it does not hold, zeros elsewhere.
    """

    layout: Layout
    sources: tuple[Layout, ...]
    lost: tuple[Vector, ...]

    def is_plain(self, operand: int, width: int) -> bool:
        """Whether the operand is added as it is."""
        source = self.sources[operand]
        return len(source) == width and not np.count_nonzero(source != np.arange(width))

    def is_absent(self, operand: int) -> bool:
        """Whether the operand gives nothing."""
        return bool((self.sources[operand] < 0).all())


def addition_at(site: Site, plan: Plan) -> Addition | None:
    """Settle the addition at this site, or None if the site is none or is gone."""
    if not site.operator.is_addition or not plan.decisions[site.node].live:
        return None
    if plan.decisions[site.node].sized_by is not None:
        return None
    if site.node not in plan.additions:
        plan.additions[site.node] = _settled(site, plan)
    return plan.additions[site.node]


def _settled(site: Site, plan: Plan) -> Addition:
    decision = plan.decisions[site.node]
    held = [plan.layouts[operand] for operand in site.operands]
    ordered = plan.orders.get(site.node)
    layout = np.flatnonzero(decision.keep) if ordered is None else ordered
    exact = [plan.decisions[operand].exact for operand in site.operands]
    if np.array_equal(held[0], held[1]) and np.isin(layout, held[0]).all() and all(e[layout].all() for e in exact):
        places, nothing = np.arange(len(held[0])), np.zeros(len(held[0]))
        return Addition(held[0], (places, places), (nothing, nothing))
    sources, lost = [], []
    for operand, channels, good in zip(site.operands, held, exact, strict=True):
        place = np.full(site.channels, -1, dtype=np.int64)
        place[channels] = np.where(good[channels], np.arange(len(channels)), -1)
        sources.append(place[layout])
        absent = (place[layout] < 0) & decision.valued[layout]
        lost.append(np.where(absent, plan.constants[operand][layout], 0.0))
    return Addition(layout, tuple(sources), tuple(lost))


def absorb(site: Site, addition: Addition, plan: Plan) -> dict[fx.Node, Vector]:
    """Biases that can take over all of the addition's constants, as float64 [C] for each layer; {} if some can not."""
    offset = np.asarray(sum(addition.lost), dtype=np.float64)
    left = offset != 0.0
    shifts: dict[fx.Node, Vector] = {}
    for operand, source in zip(site.operands, addition.sources, strict=True):
        producer = plan.network.by_node[operand]
        takes = left & (source >= 0)
        if not takes.any() or not producer.operator.absorbs(producer) or len(operand.users) != 1:
            continue
        if not varies(plan.constants[operand])[addition.layout[takes]].all():
            continue
        shift = np.zeros(site.channels)
        shift[addition.layout[takes]] = offset[takes]
        shifts[operand] = shift
        left = left & ~takes
    return {} if left.any() else shifts
