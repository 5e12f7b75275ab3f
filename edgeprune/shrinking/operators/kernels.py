"""The weights of a convolution or linear layer, read as connections between channels.

Start with `Kernels.connected`: the mask is read from the weights here and nowhere else. A connection is cut when all
its weights are zero, tested one by one: a sum can be zero by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from edgeprune.shrinking.channels import Flags, Vector

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


@dataclass(frozen=True)
class Kernels:
    """A layer's weights, with the output channels first whatever the layer."""

    layer: Layer

    @property
    def weight(self) -> Tensor:
        """The weights as [out, in / groups, *kernel]; of a transposed convolution only with one group."""
        weight = self.layer.weight.detach()
        return weight.transpose(0, 1) if isinstance(self.layer, TRANSPOSED) else weight

    @cached_property
    def connected(self) -> Flags:
        """bool [out, in / groups]: which inputs have any weight to which outputs."""
        flags = self.weight != 0
        return np.asarray((flags.flatten(2).any(dim=2) if flags.dim() > 2 else flags).cpu().numpy())

    @cached_property
    def summed(self) -> npt.NDArray[np.float64]:
        """float64 [out, in / groups]: the response to a constant input, away from any border."""
        weight = self.weight.double()
        return np.asarray((weight.flatten(2).sum(dim=2) if weight.dim() > 2 else weight).cpu().numpy())

    @property
    def bias(self) -> Vector:
        """float64 [out]: a copy of the bias, zeros where the layer has none."""
        if self.layer.bias is None:
            return np.zeros(self.weight.shape[0])
        return np.array(self.layer.bias.detach().double().cpu().numpy())

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

    def resized(self, inputs: int, outputs: int, *, groups: int = 1, bias: bool) -> Layer:
        """A new layer of the same kind with other widths; its weights are not set yet."""
        layer = self.layer
        options: dict[str, Any] = {"bias": bias, "device": layer.weight.device, "dtype": layer.weight.dtype}
        if isinstance(layer, nn.Linear):
            return nn.Linear(inputs, outputs, **options)
        options |= {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": groups}
        options["padding_mode"] = layer.padding_mode
        if isinstance(layer, TRANSPOSED):
            options["output_padding"] = layer.output_padding
        build: Any = type(layer)
        resized: Layer = build(inputs, outputs, layer.kernel_size, **options)
        return resized


def numbers_of(tensor: Tensor | None, channels: int, default: float) -> Vector:
    """float64 [C]: a layer's scale or shift, or the default where it has none."""
    if tensor is None:
        return np.full(channels, default)
    return np.asarray(tensor.detach().double().cpu().numpy())


def is_plain(module: nn.Module | None) -> bool:
    """Whether calling the module is calling its forward: no hook changes what goes in or out."""
    return module is not None and not (module._forward_hooks or module._forward_pre_hooks)
