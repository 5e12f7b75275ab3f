"""TVM against ONNX Runtime on the quickstart's networks, dense and shrunk, side by side on this machine.

    python benchmarks/speed/tvm_vs_onnxruntime.py [--threads 1] [--rounds 12] [--out DIR]

Each runtime holds each network in its own worker process; rounds of about 100 ms alternate between the two in random
order. The ratio is the geometric mean over rounds of TVM's latency by ONNX Runtime's, with a 95 % bootstrap interval.
Numbers must be equal first. With --out, a table (Markdown) and every sample (JSON) are written. Start with `compare`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgeprune as ep
from edgeprune.compiling import Artifact, compile_onnx

WORKERS = Path(__file__).resolve().parents[2] / "devices" / "workers"
RUNTIMES = ("onnxruntime", "tvm")
GOAL = 1.15
TOLERANCE = 1e-4


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


class Worker:
    """A worker process that holds one compiled network."""

    def __init__(self, artifact: Artifact, image: np.ndarray, folder: Path) -> None:
        script = WORKERS / f"{artifact.runtime}_worker.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        image.tofile(folder / "image")
        self.ask(op="load", model=str(artifact.model.resolve()), threads=artifact.threads)
        self.ask(op="bind", inputs=[{"path": str(folder / "image"), "shape": image.shape, "dtype": "float32"}])
        self.output = self._check(folder / f"{artifact.runtime}.output")
        self.time(20, 0.3)  # warm up
        self.group = max(1, int(0.01e9 / self.time(1, 0.1)))

    def ask(self, **request: object) -> list[int]:
        """Send a request and wait for its end; returns the samples that came, in ns."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        print(json.dumps(request), file=self._process.stdin, flush=True)
        samples: list[int] = []
        for line in self._process.stdout:
            answer = json.loads(line)
            samples += answer.get("samples_ns", [])
            if "error" in answer:
                raise RuntimeError(f"{request['op']}: {answer['message']}")
            if "ok" in answer:
                return samples
        raise RuntimeError(f"the worker ended during {request['op']}")

    def _check(self, path: Path) -> np.ndarray:
        self.ask(op="check", outputs=[str(path)])
        return np.fromfile(path, np.float32)

    def time(self, group: int, seconds: float) -> float:
        """Median latency of a call in ns, of as many groups as fit in the time."""
        return float(np.median(self.ask(op="time", group=group, samples=5, seconds=seconds, lead=1))) / group

    def close(self) -> None:
        """Let the process end."""
        self.ask(op="quit")
        self._process.wait()


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


def compare(case: Case, threads: int, rounds: int, folder: Path) -> Row:
    """Compile one network for both runtimes and time them in turn."""
    model, example = network(case)
    onnx_path = ep.export_onnx(model, example, folder / "network.onnx")
    start = time.perf_counter()
    artifacts = {name: compile_onnx(onnx_path, folder / name, runtime=name, threads=threads) for name in RUNTIMES}
    compile_s = time.perf_counter() - start
    workers = {name: Worker(artifacts[name], example.numpy(), folder) for name in RUNTIMES}
    reference, output = (workers[name].output for name in RUNTIMES)
    error = float(np.abs(output - reference).max() / np.abs(reference).max())
    if error > TOLERANCE:
        raise SystemExit(f"{case.name}: outputs differ by {error:.1e} relative; not timed")
    order = random.Random(0)
    latency: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    for _ in range(rounds):
        for name in order.sample(RUNTIMES, len(RUNTIMES)):
            latency[name].append(workers[name].time(workers[name].group, 0.1))
    for worker in workers.values():
        worker.close()
    logs = np.log(np.array(latency["tvm"]) / np.array(latency["onnxruntime"]))
    draws = np.random.default_rng(0).choice(logs, (2000, len(logs))).mean(axis=1)
    low, high = np.exp(np.percentile(draws, [2.5, 97.5]))
    return Row(case.name, threads, error, latency, float(np.exp(logs.mean())), float(low), float(high), compile_s)


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
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if options.only in case.name:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(compare(case, options.threads, options.rounds, Path(folder)))
            print(f"{rows[-1].ratio:.2f}  {case.name}", flush=True)
    if not rows:
        parser.error(f"no network's name contains {options.only!r}: {[case.name for case in CASES]}")
    text = table(rows)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "tvm_vs_onnxruntime.md").write_text(f"{platform.platform()}\n\n{text}\n")
        (options.out / "tvm_vs_onnxruntime.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return int(any(row.ratio > GOAL for row in rows))


if __name__ == "__main__":
    sys.exit(main())
