"""The ways to run a convolution whose kernel columns are partly zero, with what each costs.

Start with `forms`. A column is one entry (c, r, s) of the kernels [K, C, R, S] of all K filters. All ways give the same
numbers for images of any size, whatever the stride and the dilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeprune.shrinking.additions import Gather
from edgeprune.shrinking.copying import bare_twin
from edgeprune.shrinking.kernel_columns import KernelColumns, ShiftedImage
from edgeprune.shrinking.size import COPY_OF_ONE_NUMBER

COPY_OF_ONE_COLUMN = 40.0
"""What gathering one number of a column costs, in multiply-adds: a copy, a shift and a join.

With strides it costs that for each number that is passed over. Measured in results/published/columns.md.
"""
FAST_3X3 = 2.4
"""How many times less a whole 3x3 convolution takes than its multiply-adds, where compiled code goes Winograd's way.

The form must pay in every runtime: in ONNX Runtime, which computes 3x3 directly, more of them would.
"""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Columns = npt.NDArray[np.bool_]
"""bool [in / groups, *kernel]: which columns have a weight that is not zero."""

_PADDING: dict[int, Any] = {
    1: nn.ConstantPad1d,
    2: nn.ConstantPad2d,
    3: nn.ConstantPad3d,
}


@dataclass(frozen=True)
class KernelForm:
    """One way to run a convolution.

    Attributes:
        columns: Columns that it holds, zeros included.
        work: Multiply-adds for the example inputs; copies count as so many more.
        note: What became of the kernels, in words; empty for the layer as it is.
        build: Makes the convolution, and what goes in front of it, if anything.
    """

    columns: int
    work: float
    note: str
    build: Callable[[], tuple[nn.Module, nn.Module | None]]


@dataclass(frozen=True)
class _Window:
    """One axis of a kernel: the places that are left, and the zeros before and behind the image for them."""

    first: int
    last: int
    step: int
    dilation: int
    before: int
    behind: int

    @property
    def size(self) -> int:
        return (self.last - self.first) // self.step + 1

    @property
    def inside(self) -> bool:
        """Whether a convolution can do the padding itself."""
        return self.before == self.behind >= 0


def live_columns(layer: Convolution) -> Columns:
    """bool [in / groups, *kernel]: columns with any weight that is not zero."""
    weight = layer.weight.detach()
    alive = weight[0] != 0
    if not bool(alive.all()):  # nearly always the first filter tells
        alive = (weight != 0).any(0)
    return np.asarray(alive.cpu().numpy(), dtype=np.bool_)


def forms(layer: Convolution, alive: Columns, read: int, written: int) -> list[KernelForm]:
    """The layer as it is, with a smaller kernel, and with gathered columns, as far as they are ways of their own.

    Args:
        layer: With zeros around its image. Groups have columns of their own, which are not gathered.
        alive: Its `live_columns`, not all of them zero.
        read: Pixels of one channel of its input, for all samples of the example.
        written: Pixels of one channel of its output.
    """
    rows, total = len(layer.weight), alive.size
    whole = total * rows * written / (FAST_3X3 if _is_fast(layer) else 1.0)
    found = [KernelForm(total, whole, "", lambda: (layer, None))]
    windows = _windows(layer, alive)
    columns = len(alive) * prod(window.size for window in windows)
    if columns < total:
        copied = 0 if all(window.inside for window in windows) else layer.in_channels * read
        work = columns * rows * written + COPY_OF_ONE_NUMBER * copied
        note = f"kernel {_by(layer.kernel_size)} made {_by([window.size for window in windows])}"
        found.append(KernelForm(columns, work, note, partial(_trimmed, layer, windows)))
    left = int(alive.sum())
    if layer.groups == 1 and left < columns:
        work = left * written * (rows + COPY_OF_ONE_COLUMN * prod(layer.stride))
        found.append(
            KernelForm(left, work, f"{left} of {total} kernel columns gathered", partial(_gathered, layer, alive))
        )
    return found


def _is_fast(layer: Convolution) -> bool:
    plain = all(step == 1 for step in (*layer.stride, *layer.dilation))
    return layer.kernel_size == (3, 3) and plain and layer.groups == 1


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _windows(layer: Convolution, alive: Columns) -> list[_Window]:
    """The smallest regular kernel that holds all columns, axis by axis."""
    windows = []
    for axis, (size, dilation, pads) in enumerate(zip(layer.kernel_size, layer.dilation, _pads(layer), strict=True), 1):
        places = np.flatnonzero(alive.any(axis=tuple(other for other in range(alive.ndim) if other != axis)))
        first, last = int(places[0]), int(places[-1])
        step = max(1, gcd(*np.diff(places).tolist()))
        before, behind = pads[0] - dilation * first, pads[1] - dilation * (size - 1 - last)
        windows.append(_Window(first, last, step, dilation * step, before, behind))
    return windows


def _pads(layer: Convolution) -> list[tuple[int, int]]:
    """The zeros before and behind the image, by axis."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":  # what is odd goes behind
        spans = [far * (size - 1) for far, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    return [(int(side), int(side)) for side in layer.padding]


def _trimmed(layer: Convolution, windows: Sequence[_Window]) -> tuple[nn.Module, nn.Module | None]:
    places: Any = [slice(window.first, window.last + 1, window.step) for window in windows]
    padding = [window.before if window.inside else 0 for window in windows]
    sizes, dilation = [window.size for window in windows], [window.dilation for window in windows]
    made = _rebuilt(layer, layer.weight.detach()[:, :, *places], sizes, layer.stride, padding, dilation)
    outside = [(0, 0) if window.inside else (window.before, window.behind) for window in windows]
    if not any(map(any, outside)):
        return made, None
    pads = _last_axis_first(outside)
    return made, ShiftedImage(pads) if min(pads) < 0 else _PADDING[len(windows)](pads, 0.0)


def _gathered(layer: Convolution, alive: Columns) -> tuple[nn.Module, nn.Module | None]:
    """A 1x1 convolution of the columns, place by place in the kernel."""
    weight, pads, gathers, shifts, parts = layer.weight.detach(), _pads(layer), [], [], []
    kernels, by_place = weight.flatten(2), alive.reshape(len(alive), -1)
    for flat in np.flatnonzero(by_place.any(axis=0)).tolist():
        place = np.unravel_index(flat, layer.kernel_size)
        index = torch.from_numpy(np.flatnonzero(by_place[:, flat])).to(weight.device)
        gathers.append(Gather(index, layer.in_channels))
        moved = [
            (before - far * int(at), behind - far * (size - 1 - int(at)))
            for at, size, far, (before, behind) in zip(place, layer.kernel_size, layer.dilation, pads, strict=True)
        ]
        shifts.append(_last_axis_first(moved))
        parts.append(kernels[:, index, flat])
    ones, zeros = [1] * len(pads), [0] * len(pads)
    columns = torch.cat(parts, 1).reshape(len(weight), -1, *ones)
    return _rebuilt(layer, columns, ones, ones, zeros, ones), KernelColumns(gathers, shifts, layer.stride)


def _last_axis_first(pads: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """As `torch.nn.functional.pad` takes them."""
    return tuple(side for pair in reversed(pads) for side in pair)


def _rebuilt(
    layer: Convolution, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> nn.Module:  # fmt: skip
    """The layer with other kernels; what was frozen stays frozen."""
    made = bare_twin(layer)
    made._parameters["weight"] = nn.Parameter(weight.contiguous(), layer.weight.requires_grad)
    vars(made).update(
        in_channels=weight.shape[1] * layer.groups, kernel_size=tuple(sizes), stride=tuple(stride),
        padding=tuple(padding), dilation=tuple(dilation),
    )  # fmt: skip
    # what the constructor derives from these, for other padding than zeros
    vars(made)["_reversed_padding_repeated_twice"] = _last_axis_first([(side, side) for side in padding])
    return made
