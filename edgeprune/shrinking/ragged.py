"""A grouped convolution whose groups have different widths, as the shrunk network runs it: see `GroupedParts`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GroupedParts(nn.ModuleList):
    """Grouped convolutions side by side, each on its own part of the channels; each has groups of one width.

    Args:
        parts: Convolutions with groups; the first reads the first channels of the input, and so on.

    Example:
        >>> parts = GroupedParts([nn.Conv2d(4, 2, 1, groups=2), nn.Conv2d(1, 3, 1)])
        >>> parts(torch.zeros(1, 5, 8, 8)).shape
        torch.Size([1, 5, 8, 8])
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__(parts)
        self.widths = [int(getattr(part, "in_channels")) for part in parts]  # noqa: B009 - all convolutions have it
        self.in_channels = sum(self.widths)
        self.out_channels = sum(int(getattr(part, "out_channels")) for part in parts)  # noqa: B009

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, ...] to [N, out_channels, ...]."""
        outputs, start = [], 0
        for part, width in zip(self, self.widths, strict=True):
            outputs.append(part(x[:, start : start + width]))
            start += width
        return torch.cat(outputs, 1)
