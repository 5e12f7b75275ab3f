"""TVM against ONNX Runtime on the quickstart's networks, dense and shrunk, side by side on this machine.

    python benchmarks/speed/tvm_vs_onnxruntime.py [--threads 1] [--rounds 12] [--out DIR]

Each runtime holds each network in its own worker process on the same cores; rounds of about 100 ms alternate between
the two in random order. The ratio is the geometric mean over rounds of TVM's latency by ONNX Runtime's, with a 95 %
bootstrap interval: of rounds, not of launches, so it does not say how much another launch would differ. Numbers must be
equal first. With --out, a table (Markdown) and the latency of every round (JSON) are written. Start with `compare`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from starting import acquired
from torch import nn

import edgeprune as ep
from edgeprune.compiling import compile_onnx
from edgeprune.errors import ParityError
from edgeprune.exporting import PARITY_TOLERANCE, parity
from edgeprune.measuring import PRESETS, group_size
from edgeprune.measuring.statistics import expand_interval
from edgeprune.transport import Transport, Worker

RUNTIMES = ("onnxruntime", "tvm")
GOAL = 1.15
RESAMPLES = 10_000


@dataclass(frozen=True)
class Case:
    """One network of the comparison; `ratio` None is dense."""

    model: str
    in_channels: int
    ratio: float | None = None
    method: str = "random"

    @property
    def name(self) -> str:
        """Name in the table."""
        form = "dense" if self.ratio is None else f"{self.method} {self.ratio:.0%} shrunk"
        return f"{self.model}, {self.in_channels} channel{'s' * (self.in_channels > 1)}, {form}"


CASES = (
    Case("lenet5", 1),
    *(Case("lenet5", 1, ratio) for ratio in (0.3, 0.5, 0.7)),
    Case("resnet20", 3),
    *(Case("resnet20", 3, ratio) for ratio in (0.3, 0.5, 0.7)),
    Case("resnet20", 1),
    Case("resnet20", 1, 0.5),
)


@dataclass(frozen=True)
class Row:
    """The result for one network; latencies in ns a call, one a round and runtime."""

    network: str
    threads: int
    error: float
    latency_ns: dict[str, list[float]]
    ratio: float
    ratio_low: float
    ratio_high: float
    compile_s: float


class Contender:
    """A network in one runtime's worker, found right and warmed up.

    Raises:
        ParityError: its output differs from what is wanted by more than the tolerance; nothing was timed then.
    """

    def __init__(
        self,
        worker: Worker,
        model: str,
        image: tuple[str, np.ndarray],
        wanted: np.ndarray,
        threads: int,
        tolerance: float = PARITY_TOLERANCE,
    ) -> None:
        worker.load(model, threads)
        worker.bind([image])
        (output,) = worker.check(1)
        self.error = parity(wanted, output)
        if not self.error <= tolerance:
            raise ParityError(f"{model}: the output differs from the network's by {self.error:.1e} relative")
        self._worker = worker
        first = worker.time(group=1, samples=20, seconds=0.3).samples_ns
        self._group = group_size(median(first[len(first) // 2 :]), PRESETS["quick"])

    def latency_ns(self) -> float:
        """Median latency of a call, of as many groups as fit in 100 ms."""
        taken = self._worker.time(group=self._group, samples=5, seconds=0.1, lead=1)
        return median(taken.samples_ns) / taken.group


def network(case: Case) -> tuple[nn.Module, torch.Tensor]:
    """The network of a case and an example input; fresh weights, batch-norm statistics as after training."""
    model = ep.models.build(case.model, in_channels=case.in_channels).eval()
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            for tensor, low, high in (
                (part.weight.data, 0.5, 1.5),
                (part.bias.data, -0.3, 0.3),
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    size = 28 if case.model.startswith("lenet") else 32
    example = torch.randn(1, case.in_channels, size, size, generator=generator)
    if case.ratio is not None:
        masks = ep.prune(model, example, method=case.method, ratio=case.ratio)
        model = ep.shrink(masks.apply(model), example).model
    return model.eval(), example


def exported(case: Case, folder: Path) -> tuple[Path, torch.Tensor, np.ndarray]:
    """The network's ONNX file in the folder, its input float32 [1, C, H, W], and what PyTorch answers."""
    model, example = network(case)
    with torch.no_grad():
        wanted = model(example).numpy()
    return ep.export_onnx(model, example, folder / "network.onnx"), example, wanted


def compare(case: Case, threads: int, rounds: int, transport: Transport, folder: Path) -> Row:
    """Compile one network for both runtimes and time them in turn.

    Raises:
        ParityError: an output differs from the network's.
    """
    onnx_path, example, wanted = exported(case, folder)
    start = time.perf_counter()
    artifacts = {name: compile_onnx(onnx_path, folder / name, runtime=name, threads=threads) for name in RUNTIMES}
    compile_s = time.perf_counter() - start
    example.numpy().tofile(folder / "image.bin")
    image = (transport.push([folder / "image.bin"])[0], example.numpy())
    with contextlib.ExitStack() as stack:
        contenders = {}
        for name in RUNTIMES:
            worker = stack.enter_context(Worker.start(transport, name, cores(transport, threads)))
            contenders[name] = Contender(worker, transport.push([artifacts[name].model])[0], image, wanted, threads)
        error = max(contender.error for contender in contenders.values())
        order = random.Random(0)
        latency: dict[str, list[float]] = {name: [] for name in RUNTIMES}
        for _ in range(rounds):
            for name in order.sample(RUNTIMES, len(RUNTIMES)):
                latency[name].append(contenders[name].latency_ns())
    return Row(case.name, threads, error, latency, *ratio(latency["tvm"], latency["onnxruntime"]), compile_s)


def cores(transport: Transport, threads: int) -> list[int] | None:
    """The last cores of this machine, since the first serve interrupts; None where it cannot pin."""
    facts = transport.facts()
    return sorted(core["core"] for core in facts["cores"])[-threads:] if facts["pinning"] else None


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Geometric mean of the quotients of latencies taken in the same round, and the ends of its 95 % interval."""
    logs = np.log(np.array(ours) / np.array(theirs))
    drawn = np.random.default_rng(0).choice(logs, (RESAMPLES, len(logs))).mean(axis=1)
    return (math.exp(logs.mean()), *expand_interval(drawn, float(logs.mean()), len(logs)))


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| network | threads | ONNX Runtime µs | TVM µs | TVM / ONNX Runtime | 95 % | compile s | max difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ort, tvm = (np.median(row.latency_ns[name]) / 1e3 for name in RUNTIMES)
        lines.append(
            f"| {row.network} | {row.threads} | {ort:.1f} | {tvm:.1f} | {row.ratio:.2f} | "
            f"{row.ratio_low:.2f} - {row.ratio_high:.2f} | {row.compile_s:.1f} | {row.error:.0e} |"
        )
    worst = max(rows, key=lambda row: row.ratio)
    verdict = "met" if worst.ratio <= GOAL else "missed"
    return "\n".join(
        [*lines, "", f"Goal {GOAL} on every network: {verdict}; worst {worst.ratio:.2f} ({worst.network})."]
    )


def main() -> int:
    """Run the comparison; exit status 1 if the goal is missed on a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--out", type=Path, help="folder for tvm_vs_onnxruntime.md and .json")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.name]
    if not cases:
        parser.error(f"no network's name contains {options.only!r}: {[case.name for case in CASES]}")
    if options.rounds < 2:
        parser.error("an interval takes at least 2 rounds")
    transport = acquired(parser)
    rows = []
    with contextlib.closing(transport):
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(compare(case, options.threads, options.rounds, transport, Path(folder)))
            print(f"{rows[-1].ratio:.2f}  {case.name}", flush=True)
    text = table(rows)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "tvm_vs_onnxruntime.md").write_text(f"{platform.platform()}\n\n{text}\n")
        (options.out / "tvm_vs_onnxruntime.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return int(any(row.ratio > GOAL for row in rows))


if __name__ == "__main__":
    sys.exit(main())
