"""The simulated accelerator's cycles against those of SCALE-Sim, an independent simulator of such arrays.

    python -m venv .venv/scalesim && .venv/scalesim/bin/pip install scalesim==3.0.0 'numpy<2.4'
    python benchmarks/speed/scale_sim.py --python .venv/scalesim/bin/python --out results/fpga

Start with `main`. The convolutions of ResNet-20 for pictures of 32 x 32, one by one: edgeprune's are those of the whole
network, from its layer table. SCALE-Sim is asked for both dataflows with which its array meets the same sums. Its
weight-stationary array empties and fills again for each block of weights; here the next block waits in a second set of
registers, so for small pictures it takes less.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WORKER = Path(__file__).resolve().parent / "workers" / "scale_sim_worker.py"
DATAFLOWS = ("ws", "os")
SIZES = (8, 16)


@dataclass(frozen=True)
class Row:
    """One convolution on one array."""

    array: str
    layer: str
    pixels: int
    channels: str
    edgeprune: int
    weight_stationary: int
    output_stationary: int

    @property
    def nearest(self) -> float:
        """SCALE-Sim's better dataflow over edgeprune's cycles, less 1."""
        return min(self.weight_stationary, self.output_stationary) / self.edgeprune - 1.0


def own(n: int) -> list[tuple[str, tuple[int, int, int, int, int, int], int]]:
    """Each convolution of ResNet-20 by name, with what SCALE-Sim is told of it, and its cycles here."""
    import torch

    from edgeprune import models
    from edgeprune.compiling import compile_onnx, fpga
    from edgeprune.exporting import export_onnx, quantise

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(models.build("resnet20"), torch.zeros(1, 3, 32, 32), folder / "float.onnx")
        images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
        quantise(folder / "float.onnx", images, folder / "int8.onnx")
        made = compile_onnx(folder / "int8.onnx", folder / "made", runtime="fpga", target=f"fpga-{n}x{n}")
        done = fpga.Network(made.model).run({"input": images[:1]})
    found, size = [], 32
    for layer in done.figures.layers:
        if not layer.operator.startswith("Conv"):
            continue
        kernel = round((layer.macs / (layer.in_channels * layer.out_channels * layer.rows * layer.columns)) ** 0.5)
        stride = 2 if layer.rows < size and layer.in_channels < layer.out_channels else 1
        rows = (layer.rows - 1) * stride + kernel
        told = (rows, rows, kernel, layer.in_channels, layer.out_channels, stride)
        found.append((layer.name, told, layer.cycles))
        size = layer.rows if kernel > 1 else size
    return found


def compare(python: Path, n: int) -> list[Row]:
    """Both simulators, layer by layer."""
    layers = own(n)
    asked = {"n": n, "dataflows": DATAFLOWS, "layers": [told for _, told, _ in layers]}
    done = subprocess.run(
        [str(python), str(WORKER)], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"SCALE-Sim failed:\n{done.stderr[-3000:]}")
    theirs = json.loads(done.stdout)
    return [
        Row(f"{n}x{n}", name, (told[0] - told[2]) // told[5] + 1, f"{told[3]} > {told[4]}", cycles, ws, os)
        for (name, told, cycles), ws, os in zip(layers, theirs["ws"], theirs["os"], strict=True)
    ]


def total(rows: list[Row]) -> Row:
    """All layers of one array."""
    sums = [sum(values) for values in zip(
        *((row.edgeprune, row.weight_stationary, row.output_stationary) for row in rows), strict=True
    )]  # fmt: skip
    return Row(rows[0].array, "all convolutions", 0, "", *sums)


def table(rows: list[Row]) -> str:
    """The comparison as Markdown."""
    lines = ["| Array | Layer | Pixels | Channels | edgeprune | SCALE-Sim ws | SCALE-Sim os | Nearest |",
             "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for row in rows:
        pixels = f"{row.pixels} x {row.pixels}" if row.pixels else ""
        lines.append(
            f"| {row.array} | {row.layer} | {pixels} | {row.channels} | {row.edgeprune:,} | {row.weight_stationary:,} |"
            f" {row.output_stationary:,} | {100 * row.nearest:+.1f} % |"
        )
    return "\n".join(lines) + "\n"


def page(rows: list[Row]) -> str:
    """The comparison with what it means, as Markdown."""
    apart = " and ".join(f"{100 * row.nearest:+.1f} % on {row.array}" for row in rows if not row.pixels)
    return f"""# Cycles beside those of an independent simulator
`make bench-fpga`: the convolutions of the dense ResNet-20 on pictures of 32 x 32, in edgeprune's simulation of its own
hardware and in SCALE-Sim 3.0.0, with weights or outputs held in the array (`ws`, `os`). The last column is SCALE-Sim's
nearer dataflow against edgeprune: over all convolutions {apart}.

SCALE-Sim's array empties and fills again for each block of weights; this one changes weights between two words, so
SCALE-Sim needs more, most of all for small pictures. It needs less for the first layer, whose three channels leave
columns of this array idle (SCALE-Sim packs the kernel's taps beside each other), and whose picture comes from the
memory here.

{table(rows)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, required=True, help="a Python that has scalesim")
    parser.add_argument("--out", type=Path, default=Path("results/fpga"))
    given = parser.parse_args()
    rows = []
    for n in SIZES:
        mine = compare(given.python, n)
        rows += [*mine, total(mine)]
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "scale_sim.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["array", "layer", "pixels", "channels", "edgeprune", "weight_stationary", "output_stationary", "nearest"]
        )
        writer.writerows([*vars(row).values(), f"{row.nearest:.4f}"] for row in rows)
    (given.out / "scale_sim.md").write_text(page(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
