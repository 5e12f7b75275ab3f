"""How much of the accelerator's N x N multipliers is used: ResNet-18's 3x3 convolutions one by one, ResNet-20 whole.

    python benchmarks/speed/array_utilisation.py --out results/array_utilisation.json

Start with `resnet20`. Weights are random: cycles depend on shapes alone. Utilisation is the network's own
multiply-adds (samples of padding among them, as everywhere) over N x N times all cycles, from the first command to the
last word written, loads and stores included; what the array does for channels that are not there counts as waste.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import Addition, Layer, fold, folded, pack
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.places import Ring, Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.compiling.fpga.simulator import Simulation, simulate

Int8 = NDArray[np.int8]
SAME = (1, 1, 1, 1)
SIZE = 32  # CIFAR's pictures
STAGES = (16, 32, 64)
BLOCKS = 3
# channels in, channels out, rows and columns in, stride: the 3x3 convolutions of ResNet-18 on pictures of 224 x 224
RESNET18 = (
    (64, 64, 56, 1), (64, 128, 56, 2), (128, 128, 28, 1), (128, 256, 28, 2), (256, 256, 14, 1), (256, 512, 14, 2),
    (512, 512, 7, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """A program, the memory that it runs over, and the multiply-adds that it stands for."""

    program: Program
    memory: Int8
    macs: int

    def utilisation(self, done: Simulation) -> float:
        """The part of the array's multiply-adds that were the network's."""
        return self.macs / (self.program.core.n**2 * done.cycles)


def convolution(
    rng: np.random.Generator, shape: tuple[int, int, int], *, stride: int = 1, added: bool = False
) -> Layer:
    """A convolution with random weights that is as large as its results are."""
    out, inner, kernel = shape
    weights = rng.integers(-128, 128, (out, inner, kernel, kernel), dtype=np.int8)
    shift = np.full(out, 31 + int(np.log2(60 * (inner * kernel * kernel) ** 0.5)))
    multiplier = rng.integers(1 << 30, 1 << 31, out).astype(np.int32)
    return Layer(
        weights, rng.integers(-5000, 5000, out, dtype=np.int32), multiplier, shift, stride=(stride, stride), low=0,
        padding=SAME if kernel == 3 else (0, 0, 0, 0), addition=Addition(1 << 14, 1 << 14, 15) if added else None,
    )  # fmt: skip


def resnet20(core: Core, seed: int = 0) -> Stream:
    """All convolutions and additions of ResNet-20; activations stay in the buffers, the last ones are stored.

    Two places in the activation buffer take turns; what is added later lies in the result buffer, too, and the sum
    takes its place.
    """
    rng = np.random.default_rng(seed)
    first = convolution(rng, (STAGES[0], 3, 3))
    picture = pack(fold(first, rng.integers(-128, 128, (3, SIZE, SIZE), dtype=np.int8)), core.n)
    out_bytes = core.planes(STAGES[-1]) * (SIZE // 4) ** 2 * core.n
    half = core.a_words // 2
    lowering = Lowering(Program(core), weights_at=picture.size + out_bytes, a=Ring(half, half))
    macs = first.macs(SIZE, SIZE)
    x = Tensor(STAGES[0], SIZE, SIZE, a=0, r=0)
    lowering.add(folded(first), Tensor(9, SIZE, SIZE, memory=0), x)
    for stage, channels in enumerate(STAGES):
        for block in range(BLOCKS):
            stride = 2 if stage and not block else 1
            ends = stage == len(STAGES) - 1 and block == BLOCKS - 1
            size = x.rows // stride
            one = convolution(rng, (channels, x.channels, 3), stride=stride)
            two = convolution(rng, (channels, channels, 3), added=True)
            between = Tensor(channels, size, size, a=half)
            lowering.add(one, x, between)
            skip = Tensor(channels, size, size, r=0)
            if stride == 2:
                short = convolution(rng, (channels, x.channels, 1), stride=2)
                lowering.add(short, x, skip)
                macs += short.macs(x.rows, x.rows)
            macs += one.macs(x.rows, x.rows) + two.macs(size, size)
            x = Tensor(channels, size, size, a=None if ends else 0, r=0, memory=picture.size if ends else None)
            lowering.add(two, between, x, skip)
    return Stream(lowering.program, _memory(picture, out_bytes, lowering), macs)


def alone(core: Core, shape: tuple[int, int, int, int], seed: int = 0) -> Stream:
    """One 3x3 convolution from memory to memory: channels in and out, rows and columns in, stride."""
    inner, out, size, stride = shape
    rng = np.random.default_rng(seed)
    layer = convolution(rng, (out, inner, 3), stride=stride)
    picture = pack(rng.integers(-128, 128, (inner, size, size), dtype=np.int8), core.n)
    made = layer.picture(size, size)
    out_bytes = core.planes(out) * made[0] * made[1] * core.n
    lowering = Lowering(Program(core), weights_at=picture.size + out_bytes)
    lowering.add(layer, Tensor(inner, size, size, memory=0), Tensor(out, *made, memory=picture.size))
    return Stream(lowering.program, _memory(picture, out_bytes, lowering), layer.macs(size, size))


def _memory(picture: Int8, out_bytes: int, lowering: Lowering) -> Int8:
    return np.concatenate([picture.reshape(-1), np.zeros(out_bytes, np.int8), *lowering.weights])


def _row(name: str, stream: Stream) -> dict[str, object]:
    done = simulate(stream.program, stream.memory)
    row = {
        "array": stream.program.core.label, "what": name, "macs": stream.macs, "cycles": done.cycles,
        "utilisation": round(stream.utilisation(done), 4), "bytes_read": done.bytes_read,
        "bytes_written": done.bytes_written, "stalls": done.stalls,
    }  # fmt: skip
    print(f"{row['array']:>6} {name:34} {stream.macs:>12,} MACs {done.cycles:>10,} cycles {row['utilisation']:7.1%}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrays", type=int, nargs="+", default=[8, 16], help="N of the cores")
    parser.add_argument("--out", type=Path, help="a JSON file for the table")
    args = parser.parse_args()
    rows = []
    for core in map(Core, args.arrays):
        rows.append(_row("ResNet-20, all convolutions", resnet20(core)))
        for shape in RESNET18:
            inner, out, size, stride = shape
            rows.append(_row(f"3x3, {inner} to {out}, {size}x{size}, stride {stride}", alone(core, shape)))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
