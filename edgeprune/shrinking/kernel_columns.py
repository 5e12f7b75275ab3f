"""The rows of a convolution's patches that its kernel columns read, as the shrunk network gathers them.

A column is one entry (c, r, s) of the kernels [K, C, R, S], for all K filters at once: one row of the patches (im2col)
that a convolution is a matrix product with (Schindler et al., Parameterized Structured Pruning, figure 1). Where most
columns are gone, `KernelColumns` gathers the rows of the others and a 1x1 convolution multiplies them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking.additions import Gather
from edgeprune.shrinking.forms import CHANNEL_AXIS


class ShiftedImage(nn.Module):
    """An image with zeros around it and some of its rows and columns of pixels cut off, whatever its size.

    Args:
        pads: As `torch.nn.functional.pad` takes them: the last axis first, negative where pixels are cut off.

    Example:
        >>> ShiftedImage((3, -3))(torch.tensor([[[5.0, 7.0]]]))
        tensor([[[0., 0.]]])
    """

    def __init__(self, pads: Sequence[int]) -> None:
        super().__init__()
        self.pads = tuple(pads)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, *sizes] to [N, C, *sizes and pads]."""
        return shifted(x, self.pads)

    def extra_repr(self) -> str:
        """The pads."""
        return str(self.pads)


def shifted(x: Tensor, pads: Sequence[int]) -> Tensor:
    """The tensor with these pads; torch itself cuts before it pads, which fails on images smaller than the cut."""
    cuts = [min(pad, 0) for pad in pads]
    if any(x.size(-1 - place // 2) + cuts[place] + cuts[place + 1] < 1 for place in range(0, len(pads), 2)):
        return F.pad(F.pad(x, [max(pad, 0) for pad in pads]), cuts)
    return F.pad(x, tuple(pads)) if any(pads) else x


class KernelColumns(nn.ModuleList):
    """For each place in a kernel some channels of the image, moved by as much as the place is off.

    Args:
        gathers: For each place the channels that have a column there.
        pads: For each place how the image is moved, as `ShiftedImage` takes it.
        strides: The convolution's, one for each axis of the image.

    Example:
        >>> right, left = (Gather(torch.tensor([0]), 1) for _ in range(2))
        >>> KernelColumns([right, left], [(1, -1), (0, 0)], (1,))(torch.tensor([[[5.0, 7.0]]]))
        tensor([[[0., 5.],
                 [5., 7.]]])
    """

    def __init__(self, gathers: Sequence[Gather], pads: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__(gathers)
        self.pads = [tuple(each) for each in pads]
        self.strides = tuple(strides)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, *sizes] to [N, columns, *sizes of the convolution's output]: place by place, then by channel."""
        rows = []
        for gather, pads in zip(self, self.pads, strict=True):
            row = shifted(gather(x), pads)
            for axis, stride in enumerate(self.strides, CHANNEL_AXIS + 1):
                # torch.export makes of x[..., ::2] what ONNX calls a Slice
                row = row if stride == 1 else row[(slice(None),) * axis + (slice(None, None, stride),)]
            rows.append(row)
        return torch.cat(rows, CHANNEL_AXIS)

    def extra_repr(self) -> str:
        """Places in the kernel."""
        return f"{len(self.pads)} places"
