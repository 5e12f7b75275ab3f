"""What `edgeprune tune` gains on this machine: its kernels, and whole networks tuned and untuned in turn, one thread.

    python benchmarks/speed/tuning.py [--only lenet5] [--trials 64] [--rounds 400] [--out DIR]

Both libraries of a network are held by one process, which calls them in turn in random order, about a millisecond each
time: short, so that most turns are not interrupted where other programs run beside. The gain is the quotient of the
medians over all rounds, with a 95 % bootstrap interval over rounds. Numbers must be equal first. Pin it to a core, as
with `taskset -c 0`. With --out, tuning.md is written there. Start with `measure`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm_vs_onnxruntime import RESAMPLES, Case, exported

from edgeprune.compiling import compile_onnx, target
from edgeprune.compiling.processors import processor_name
from edgeprune.compiling.tvm.tuned import LEAST_GAIN, Found
from edgeprune.compiling.tvm.tuning import tune
from edgeprune.errors import ParityError
from edgeprune.exporting import PARITY_TOLERANCE, parity

CASES = (Case("lenet5", 1), Case("resnet20", 3), Case("resnet20", 3, 0.5))
FORMS = ("untuned", "tuned")
_TURN_S = 1e-3


@dataclass(frozen=True)
class Row:
    """The result for one network; latencies in ns a call, medians over rounds."""

    network: str
    kernels: list[Found]
    tuning_s: float
    error: float
    untuned_ns: float
    tuned_ns: float
    gain: float
    gain_low: float
    gain_high: float


def measure(case: Case, database: Path, trials: int, rounds: int, folder: Path) -> Row:
    """Tune one network, and time it tuned and untuned.

    Raises:
        ParityError: an output differs from the network's.
    """
    onnx_path, example, wanted = exported(case, folder)
    start, kernels = time.perf_counter(), list[Found]()
    tune(onnx_path, target("host"), 1, database, trials=trials, told=kernels.append)
    tuning_s = time.perf_counter() - start
    calls, error = {}, 0.0
    for form, tuned in zip(FORMS, (None, database), strict=True):
        artifact = compile_onnx(onnx_path, folder / form, runtime="tvm", tuned=tuned)
        calls[form], output = _loaded(artifact.model, example.numpy())
        error = max(error, parity(wanted, output))
    if not error <= PARITY_TOLERANCE:
        raise ParityError(f"{case.name}: an output differs from the network's by {error:.1e} relative")
    latency = timed_in_turn(calls, rounds)
    untuned_ns, tuned_ns = (float(np.median(latency[form])) for form in FORMS)
    return Row(case.name, kernels, tuning_s, error, untuned_ns, tuned_ns, *gain(latency["untuned"], latency["tuned"]))


def _loaded(library: Path, image: NDArray[np.float32]) -> tuple[Callable[[], object], NDArray[np.float32]]:
    """A call of a network on an image, and what it gives."""
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    given = tvm.runtime.tensor(image)
    return lambda: machine["main"](given), np.asarray(machine["main"](given).numpy())


def timed_in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Latency of each call in ns, one a round; in a round each is repeated as often."""
    start = time.perf_counter()
    for _ in range(20):
        next(iter(calls.values()))()
    group = max(1, round(_TURN_S * 20 / (time.perf_counter() - start)))
    latency: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            start_ns = time.perf_counter_ns()
            for _ in range(group):
                calls[name]()
            latency[name].append((time.perf_counter_ns() - start_ns) / group)
    return {name: np.array(values) for name, values in latency.items()}


def gain(untuned: NDArray[np.float64], tuned: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median of `untuned` by that of `tuned`, and the ends of its 95 % interval; latencies of the same rounds."""
    drawn = np.random.default_rng(0).integers(len(untuned), size=(RESAMPLES, len(untuned)))
    quotients = np.median(untuned[drawn], axis=1) / np.median(tuned[drawn], axis=1)
    low, high = np.quantile(quotients, [0.025, 0.975])
    return float(np.median(untuned) / np.median(tuned)), float(low), float(high)


def page(rows: list[Row], command: str) -> str:
    """The results as Markdown."""
    lines = [
        "# Tuning: what it gains",
        "",
        f"Made by `{command}` on {processor_name()}, one thread (load "
        f"{os.getloadavg()[2]:.1f} over the last 15 minutes on {os.cpu_count()} cores). Medians over rounds in turn:",
        "",
        "| network | untuned µs | tuned µs | gain | 95 % | tuning s | max difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.network} | {row.untuned_ns / 1e3:.1f} | {row.tuned_ns / 1e3:.1f} | {row.gain:.2f} | "
            f"{row.gain_low:.2f} - {row.gain_high:.2f} | {row.tuning_s:.0f} | {row.error:.0e} |"
        )
    lines += [
        "",
        "Kernels with something to tune, each where it comes first; convolutions with Winograd's way have nothing. "
        f"Where the gain is under {LEAST_GAIN}, the form that needs no tuning is kept.",
        "",
        "| network | kernel | tried | untuned µs | best µs | gain | best form |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for kernel in row.kernels:
            form = kernel.form
            told = f"{form.rows} x {form.cols} x {form.vectors}" + ", rows outside" * form.rows_outside
            told += ", columns unrolled" * form.columns_unrolled
            lines.append(
                f"| {row.network} | {kernel.name} | {kernel.trials} | {kernel.untuned_ns / 1e3:.1f} | "
                f"{kernel.tuned_ns / 1e3:.1f} | {kernel.untuned_ns / kernel.tuned_ns:.2f} | {told} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Tune and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", type=Path, help="folder for tuning.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as database:
        for case in (case for case in CASES if options.only in case.name):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(case, Path(database), options.trials, options.rounds, Path(folder)))
            print(f"{rows[-1].gain:.2f}  {case.name}", flush=True)
    text = page(rows, f"python benchmarks/speed/tuning.py {' '.join(sys.argv[1:])}".strip())
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "tuning.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
