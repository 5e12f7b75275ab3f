"""Numbers in the sizes of an image, as the shrunk network makes them where no layer is left: see `ConstantChannels`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ImageRule = Sequence[tuple[int, int, int]]
"""For each axis but the batch's and the channels' (times, plus, over): a size s becomes (s * times + plus) // over."""

SAME_SIZE = (1, 0, 1)


class ConstantChannels(nn.Module):
    """One number a channel, at every place of a batch of images of the sizes that a layer would give them.

    Args:
        numbers: [1, K, 1, ...], 1 wide on all axes but that of the channels.
        axis: Where the channels stand.
        rule: How its sizes follow from those of what it is called with.

    Example:
        >>> halved = ConstantChannels(torch.tensor([[[[0.5]], [[2.0]]]]), 1, ((1, 1, 2), (1, 1, 2)))
        >>> halved(torch.zeros(1, 3, 5, 4)).shape
        torch.Size([1, 2, 3, 2])
    """

    numbers: Tensor

    def __init__(self, numbers: Tensor, axis: int, rule: ImageRule) -> None:
        super().__init__()
        self.axis, self.rule = axis, tuple(rule)
        self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] to [N, K, ...]; of x the sizes alone count."""
        sizes = [x.size(0)]
        for axis in range(1, self.numbers.dim()):
            if axis == self.axis:
                sizes.append(-1)
            else:
                times, plus, over = rule = self.rule[axis - 1 - (axis > self.axis)]
                sizes.append(x.size(axis) if rule == SAME_SIZE else (x.size(axis) * times + plus) // over)
        return self.numbers.expand(sizes).clone(memory_format=torch.contiguous_format)
