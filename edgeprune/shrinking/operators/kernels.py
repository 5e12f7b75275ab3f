"""The weights of a convolution or linear layer, read as connections between channels.

Start with `Kernels.connected`: the mask is read from the weights here and nowhere else. A connection is cut when all
its weights are zero, tested one by one: a sum can be zero by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeprune.shrinking.channels import Flags, Layout, Vector
from edgeprune.shrinking.constant_channels import ImageRule
from edgeprune.shrinking.copying import bare_twin

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)

_NUMPY_TYPES = frozenset({torch.float32, torch.float64, torch.int64})
_PIECE = 1 << 16
"""Numbers that are copied or added up at once: the processor's cache holds them, a whole layer's it does not."""

_WHOLE = 1 << 18
"""Numbers up to which a layer is copied at once all the same: more pieces take longer than the memory saves."""


@dataclass(frozen=True)
class Kernels:
    """A layer's weights, with the output channels first whatever the layer."""

    layer: Layer
    _read_by: dict[bytes, Flags] = field(default_factory=dict, repr=False, compare=False)
    _read_in_groups: dict[bytes, Flags] = field(default_factory=dict, repr=False, compare=False)
    _responses: dict[bytes, Vector] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def weight(self) -> Tensor:
        """The weights as [out, in / groups, *kernel]."""
        weight = self.layer.weight.detach()
        if not isinstance(self.layer, TRANSPOSED):
            return weight
        if self.layer.groups == 1:
            return weight.transpose(0, 1)
        # torch keeps [in, out / groups]: each group is turned by itself
        each = weight.reshape(self.layer.groups, -1, *weight.shape[1:])
        return each.transpose(1, 2).flatten(0, 1)

    @cached_property
    def numbers(self) -> npt.NDArray[Any]:
        """The weights as [out, in / groups, places in the kernel], where numpy can read them."""
        weight = self.weight.cpu()
        numbers: npt.NDArray[Any] = (weight if weight.dtype in _NUMPY_TYPES else weight.float()).numpy()
        return np.ascontiguousarray(numbers).reshape(*numbers.shape[:2], -1)

    @cached_property
    def connected(self) -> Flags:
        """bool [out, in / groups]: which inputs have any weight to which outputs."""
        kernels = self.numbers  # numpy stops at the first weight that is not zero, torch reads all
        # most kernels tell by their middle weight; only rows with a zero there are read whole
        flags = kernels[:, :, kernels.shape[2] // 2] != 0
        if kernels.shape[2] == 1:
            return np.asarray(flags)
        rows = np.flatnonzero(~flags.all(axis=1) & kernels.reshape(len(kernels), -1).any(axis=1))
        if len(rows):
            flags[rows] = kernels[rows].any(axis=2)
        return np.asarray(flags)

    @cached_property
    def dead(self) -> Flags:
        """bool [out]: outputs without any weight."""
        return np.asarray(~self.connected.any(axis=1), dtype=np.bool_)

    def read_by(self, rows: Flags) -> Flags:
        """bool [in / groups]: inputs with any weight to the given outputs."""
        key = rows.tobytes()
        if key not in self._read_by:
            self._read_by[key] = _any_row(self.connected, np.flatnonzero(rows))
        return self._read_by[key].copy()

    def read_in_groups(self, rows: Flags, groups: int) -> Flags:
        """bool [groups, in / groups]: the same where each group of outputs reads its own inputs."""
        key = rows.tobytes()
        if key not in self._read_in_groups:
            reading = (self.connected & rows[:, None]).reshape(groups, -1, self.connected.shape[1])
            self._read_in_groups[key] = np.asarray(reading[:, 0] if reading.shape[1] == 1 else reading.any(axis=1))
        return self._read_in_groups[key].copy()

    def reached_by(self, inputs: Flags) -> Flags:
        """bool [out]: outputs with any weight from the given inputs."""
        return ~self.dead if inputs.all() else _any_row(self.connected.T, np.flatnonzero(inputs), ~self.dead)

    def response(self, constants: Vector) -> Vector:
        """float64 [out]: what constant inputs [in] add up to, away from any border."""
        key = constants.tobytes()
        if key not in self._responses:
            response, rows = np.zeros(len(self.dead)), np.flatnonzero(~self.dead)
            everywhere = torch.from_numpy(np.repeat(constants, self.numbers.shape[2]))
            for piece in _pieces(self.numbers, rows):
                response[piece] = self._in_double(piece).flatten(1).mv(everywhere).numpy()
            self._responses[key] = response
        return self._responses[key].copy()

    def added_up(self, rows: Layout, factors: Vector) -> Tensor:
        """float64 [rows, places in the kernel]: these outputs' kernels added up, each times the factor of its input."""
        by_input = torch.from_numpy(factors)
        pieces = [by_input @ self._in_double(piece) for piece in _pieces(self.numbers, rows)]
        return torch.cat(pieces) if pieces else by_input.new_empty(0, self.numbers.shape[2])

    def _in_double(self, rows: Layout) -> Tensor:
        return torch.from_numpy(self.numbers.take(rows, 0)).double()  # numpy's own products take all cores

    def summed(self) -> npt.NDArray[np.float64]:
        """float64 [out, in / groups]: the response to a one at each input, away from any border."""
        return np.asarray(self.numbers.sum(axis=2, dtype=np.float64))

    def cut(self, rows: Layout, inputs: Layout | None = None) -> Tensor:
        """[rows, inputs, *kernel]: a copy of the weights, in this order of outputs and of inputs (or all)."""
        return picked(self.weight, rows) if inputs is None else picked(self.weight, rows, inputs)

    @property
    def bias(self) -> Vector:
        """float64 [out]: a copy of the bias, zeros where the layer has none."""
        if self.layer.bias is None:
            return np.zeros(self.weight.shape[0])
        return in_double(self.layer.bias)

    @cached_property
    def sees_border(self) -> bool:
        """Whether a constant input gives an output that differs at the border of the image."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return False
        if isinstance(layer, TRANSPOSED):
            return True  # even without padding, pixels differ in how many kernels reach them
        if layer.padding_mode != "zeros" or layer.padding == "valid":
            return False
        if layer.padding == "same":
            return any(size > 1 for size in layer.kernel_size)
        return any(int(side) > 0 for side in layer.padding)

    @property
    def image_rule(self) -> ImageRule:
        """How the sizes of a convolution's output follow from its input's; empty for a linear layer."""
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return ()
        spans = [far * (kernel - 1) for far, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
        if isinstance(layer, TRANSPOSED):
            each: Any = zip(spans, layer.stride, layer.padding, layer.output_padding, strict=True)
            return [(step, span + 1 + more - 2 * int(pad) - step, 1) for span, step, pad, more in each]
        if isinstance(layer.padding, str):
            pads = spans if layer.padding == "same" else [0] * len(spans)
        else:
            pads = [2 * int(pad) for pad in layer.padding]
        return [(1, pad - span - 1 + step, step) for pad, span, step in zip(pads, spans, layer.stride, strict=True)]

    def rebuilt(self, weight: Tensor, bias: Vector, groups: int = 1) -> Layer:
        """The layer with new weights [out, in / groups, *kernel] and bias [out]; what was frozen stays frozen.

        The bias is left out where the layer had none and it is zero.
        """
        old, layer = self.layer, bare_twin(self.layer)
        outputs, inputs = weight.shape[0], weight.shape[1] * groups
        if isinstance(old, TRANSPOSED):
            weight = weight.transpose(0, 1)
        made = layer._parameters  # past nn.Module.__setattr__, which takes its time
        made["weight"] = nn.Parameter(weight.contiguous(), old.weight.requires_grad)
        if old.bias is not None or bias.any():
            numbers = torch.from_numpy(bias).to(old.weight)
            made["bias"] = nn.Parameter(numbers, (old.weight if old.bias is None else old.bias).requires_grad)
        if isinstance(layer, nn.Linear):
            vars(layer).update(in_features=inputs, out_features=outputs)
        else:
            vars(layer).update(in_channels=inputs, out_channels=outputs, groups=groups)
        return layer


def numbers_of(tensor: Tensor | None, channels: int, default: float) -> Vector:
    """float64 [C]: a layer's scale or shift, or the default where it has none."""
    if tensor is None:
        return np.full(channels, default)
    return in_double(tensor)


def in_double(tensor: Tensor) -> npt.NDArray[np.float64]:
    """A copy in float64."""
    # torch takes several times as long to convert a few numbers as numpy does
    numbers = tensor if tensor.dtype in _NUMPY_TYPES else tensor.detach().cpu().double()
    return np.asarray(numbers.numpy(force=True).astype(np.float64))


def picked(tensor: Tensor, *places: Layout) -> Tensor:
    """A contiguous copy of what stands at some places of the first axes, in the order of the places."""
    tensor = tensor.detach()
    if tensor.is_cpu and tensor.dtype in _NUMPY_TYPES:
        # numpy copies whole runs where torch copies number by number
        numbers = tensor.numpy()
        return torch.from_numpy(numbers.take(places[0], 0) if len(places) == 1 else _taken(numbers, *places))
    for axis, wanted in enumerate(places):
        tensor = tensor.index_select(axis, torch.from_numpy(wanted).to(tensor.device))
    return tensor.contiguous()


def _taken(numbers: npt.NDArray[Any], rows: Layout, inputs: Layout) -> npt.NDArray[Any]:
    """numbers[rows][:, inputs]."""
    if len(rows) * numbers[:1].size <= _WHOLE:
        return numbers.take(rows, 0).take(inputs, 1)
    # behind a flatten the inputs come in runs, each of which is one place of a wider kind
    run, shape = _run_of(inputs, numbers.shape[1]), numbers.shape
    wide = np.ascontiguousarray(numbers).reshape(shape[0], shape[1] // run, run, *shape[2:])
    result = np.empty((len(rows), len(inputs) // run, *wide.shape[2:]), numbers.dtype)
    start, places = 0, inputs[::run] // run
    for piece in _pieces(numbers, rows):
        # numpy writes straight into `out` unless it has to look for places that are not there
        wide.take(piece, 0).take(places, 1, out=result[start : start + len(piece)], mode="clip")
        start += len(piece)
    return result.reshape(len(rows), len(inputs), *shape[2:])


def _run_of(inputs: Layout, total: int) -> int:
    """The largest number that divides the total, and so the inputs that they are runs of it from multiples of it on."""
    breaks = np.append(0, np.flatnonzero(np.diff(inputs) != 1) + 1) if len(inputs) else inputs
    return int(np.gcd.reduce(np.concatenate([breaks, inputs[breaks], [len(inputs), total]])))


def _pieces(numbers: npt.NDArray[Any], rows: Layout) -> list[Layout]:
    """The rows in pieces of which the numbers fit into the cache."""
    step = max(1, _PIECE // max(1, numbers[:1].size))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def _any_row(flags: Flags, rows: Layout, candidates: Flags | None = None) -> Flags:
    """bool [columns]: whether any of the rows has the flag; `candidates` are the columns that may have it.

    Filters are pruned as a whole, so nearly always one row tells for nearly all columns.
    """
    if not len(rows):
        return np.zeros(flags.shape[1], dtype=np.bool_)
    found: Flags = flags[rows[len(rows) // 2]].copy()
    left = np.flatnonzero(~found if candidates is None else candidates & ~found)
    if len(left):
        found[left] = flags[:, left][rows].any(axis=0)
    return found


def is_plain(module: nn.Module | None) -> bool:
    """Whether calling the module is calling its class's forward: no hook and no patch of its own."""
    if module is None or "forward" in vars(module):
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)
