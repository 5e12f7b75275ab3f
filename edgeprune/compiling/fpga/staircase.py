"""What a layer costs at every width, on the simulated core: `staircase`.

An array computes N channels at once, and N - 1 that are left over cost what N do; so pruned widths between two
multiples of N save nothing.
"""

from __future__ import annotations

import numpy as np

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import Layer, scaled
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.places import Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.compiling.fpga.simulator import simulate

WIDEST = 64
_PIXELS = 8  # rows and columns of the picture: that of the last layers of a ResNet for small images


def staircase(core: Core, widest: int = WIDEST) -> list[list[int]]:
    """[channels, cycles, MACs] of a 3x3 convolution of as many channels in as out, from 1 channel on.

    The picture of 8 x 8 pixels is in the core's buffer before and after; weights come from the memory.

    Raises:
        DeviceError: the simulator cannot be built.
    """
    return [_step(core, channels) for channels in range(1, widest + 1)]


def _step(core: Core, channels: int) -> list[int]:
    one = scaled(np.full(channels, 0.01))
    layer = Layer(
        np.ones((channels, channels, 3, 3), np.int8), np.zeros(channels, np.int32), one.multiplier, one.shift,
        padding=(1, 1, 1, 1),
    )  # fmt: skip
    lowering = Lowering(Program(core))
    words = core.planes(channels) * _PIXELS * _PIXELS
    source, target = (Tensor(channels, _PIXELS, _PIXELS, a=at) for at in (0, words))
    lowering.add(layer, source, target)
    done = simulate(lowering.program, np.concatenate(lowering.weights))
    return [channels, done.cycles, layer.macs(_PIXELS, _PIXELS)]
