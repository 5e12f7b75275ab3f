"""Shrinking by figures: is it exact, how near the minimum, how fast, and what does the shrunk network gain?

    python benchmarks/speed/shrinking_table.py [--networks resnet18 ...] [--ratios 0.3 0.5] [--out results/published]

Each network gets random weights and statistics and independent random filter masks for each convolution; in case A the
biases and normalisations of zero filters make zeros, in case B they keep theirs. For one network and ratio, the masked
network, both shrunk ones and what torch-pruning makes of the dense network are compiled for ONNX Runtime and TVM, held
by one worker process each, and timed in rounds of random order on the same cores. Speed-ups are geometric means over
rounds. Masked networks have the dense one's shapes whatever was masked, so one is timed for all ratios and cases.
torch-pruning chooses its own groups of filters, since it can not take independent masks. Start with `measure`.

Rows are added to shrinking.csv as they are measured; the same command again goes on where it stopped. Needs
torch-pruning, torchvision and timm, as shrinking_speed.py does.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from interleaved import RUNTIMES, timed_in_turn
from masked_cases import masked, randomised
from shrinking_speed import NETWORKS, Network, Seconds, lacking, prune_by_torch_pruning, rounds
from starting import acquired, require
from torch import Tensor, nn
from tvm_vs_onnxruntime import ratio

import edgeprune as ep
from edgeprune.shrinking.minimum import minimum
from edgeprune.transport import Transport

CASES = ("A", "B")
THEIRS = "torch-pruning"
MASKED = 0.5
"""Part of the filters that are zero in the masked network that is timed."""


@dataclass(frozen=True)
class Facts:
    """What is known of a shrunk network before it is timed.

    `error_*` is max |masked - shrunk| / max(1, max |masked|) over batches of 1 and 2 and two image sizes, empty for
    torch-pruning, which makes another network. `minimal_*` is over the two-way connectivity minimum with
    `additions="gather"`; `params` and `macs` are of `additions="auto"`, which is timed.
    """

    network: str
    ratio: float
    case: str
    """A, B or "torch-pruning"."""
    error_float32: float | None
    error_float64: float | None
    params: int
    macs: int
    minimal_params: float | None
    minimal_macs: float | None
    cpu_s: float


@dataclass(frozen=True)
class Row(Facts):
    """One shrunk network beside its masked one. Latencies in ms, medians over rounds."""

    onnxruntime_masked_ms: float
    onnxruntime_ms: float
    onnxruntime_speedup: float
    tvm_masked_ms: float
    tvm_ms: float | None
    tvm_speedup: float | None


def error(model: nn.Module, shrunk: nn.Module, image: Tensor) -> float:
    """The largest difference by max(1, largest output): batches of 1 and 2, two sizes."""
    generator, worst = torch.Generator().manual_seed(1), 0.0
    with torch.no_grad():
        for batch, size in ((1, image.shape[-1]), (2, 64)):
            x = torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64).to(image)
            expected, actual = model(x), shrunk(x)
            worst = max(worst, float((expected - actual).abs().max() / max(1.0, float(expected.abs().max()))))
    return worst


def facts(
    dense: nn.Module, network: Network, part: float, case: str, image: Tensor, repeats: int
) -> tuple[nn.Module, Facts]:
    """Shrink one masked network, or let torch-pruning prune the dense one: the result, and what is known of it."""
    if case not in CASES:
        model = prune_by_torch_pruning(copy.deepcopy(dense), image, part)
        counts = ep.count(model, image)
        taken = rounds([lambda: _theirs(dense, image, part)], repeats)
        return model, Facts(network.name, part, case, None, None, counts.params, counts.macs, None, None, _cpu(taken))
    zeroed = masked(dense, part, case, image)
    shrunk, double = ep.shrink(zeroed, image).model, copy.deepcopy(zeroed).double()
    least, smallest = minimum(zeroed, image), ep.count(ep.shrink(zeroed, image, additions="gather").model, image)
    counts = ep.count(shrunk, image)
    return shrunk, Facts(
        network=network.name,
        ratio=part,
        case=case,
        error_float32=error(zeroed, shrunk, image),
        error_float64=error(double, ep.shrink(double, image.double()).model, image.double()),
        params=counts.params,
        macs=counts.macs,
        minimal_params=smallest.params / least.params,
        minimal_macs=smallest.macs / least.macs,
        cpu_s=_cpu(rounds([lambda: lambda: ep.shrink(zeroed, image)], repeats)),
    )


def _theirs(dense: nn.Module, image: Tensor, part: float) -> Callable[[], object]:
    victim = copy.deepcopy(dense)
    return lambda: prune_by_torch_pruning(victim, image, part)


def _cpu(taken: Iterator[list[Seconds]]) -> float:
    return median(one[0][0] for one in taken)


def measure(
    network: Network, part: float, transport: Transport, folder: Path, *, threads: int, turns: int, repeats: int
) -> list[Row]:
    """Shrink, compile and time one network at one pruning ratio: three rows.

    Raises:
        ParityError: A compiled network's output differs from its own network's.
    """
    dense, image = randomised(network), torch.randn(1, 3, network.size, network.size)
    found = {case: facts(dense, network, part, case, image, repeats) for case in (*CASES, THEIRS)}
    models = {f"{case} {part}": model.eval() for case, (model, _) in found.items()}
    models["masked"] = masked(dense, MASKED, "A", image)
    # torch-pruning's network is there to compare with, and TVM takes minutes to compile a large one
    pairs = [
        (name, runtime) for name in models for runtime in RUNTIMES if (name, runtime) != (f"{THEIRS} {part}", "tvm")
    ]
    latency_ms = timed_in_turn(models, pairs, image, transport, folder, threads=threads, turns=turns)
    rows = []
    for case, (_, known) in found.items():
        given = asdict(known)
        for runtime in RUNTIMES:
            before, after = latency_ms["masked", runtime], latency_ms.get((f"{case} {part}", runtime))
            given[f"{runtime}_masked_ms"] = median(before)
            given[f"{runtime}_ms"] = None if after is None else median(after)
            given[f"{runtime}_speedup"] = None if after is None else ratio(before, after)[0]
        rows.append(Row(**given))
    return rows


def read(path: Path) -> list[Row]:
    """The rows of an earlier run."""
    if not path.is_file():
        return []
    kinds = {field.name: str(field.type) for field in fields(Row)}

    def value(name: str, text: str) -> Any:
        if kinds[name] == "str":
            return text
        return None if not text else int(text) if kinds[name] == "int" else float(text)

    with path.open(newline="") as file:
        return [Row(**{name: value(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]


def _place(row: Row) -> tuple[int, float, int]:
    """Where a row stands in the table, whenever it was measured."""
    return [network.name for network in NETWORKS].index(row.network), row.ratio, (*CASES, THEIRS).index(row.case)


def write(rows: Sequence[Row], path: Path) -> None:
    """One line a row, under the names of `Row`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def page(rows: Sequence[Row], threads: int) -> str:
    """The rows as Markdown: what was shrunk, and what it gained, beside torch-pruning."""
    lines = [
        "# Shrinking: exactness, size, time and gain",
        "",
        f"Made by `python benchmarks/speed/shrinking_table.py` on {platform.machine()}, {platform.system()}; torch "
        f"{torch.__version__.partition('+')[0]}, {threads} thread{'s' * (threads > 1)}, float32, batch 1. Independent "
        "random masks a convolution; A: zero filters answer zero, B: their biases and normalisations stay. Difference: "
        "max |masked - shrunk| / max(1, max |masked|) in float32 and float64. Over the minimum: parameters and MACs "
        'with `additions="gather"` by those that two-way connectivity leaves; B also needs a constant channel for each '
        'tensor that is read across a zero border. All else is `additions="auto"`. CPU s: of `edgeprune.shrink`, its '
        "check of the outputs included, and of torch-pruning, which checks none. torch-pruning prunes the same part of "
        "each layer in groups of its own, so its networks are others.",
        "",
        "| network | ratio | case | difference | over the minimum: parameters, MACs | parameters | MACs | CPU s | "
        "ONNX Runtime ms, masked → shrunk | TVM ms, masked → shrunk |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(_line, rows),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    difference = "" if row.error_float32 is None else f"{row.error_float32:.0e}, {row.error_float64:.0e}"
    over = "" if row.minimal_params is None else f"{row.minimal_params:.4f}, {row.minimal_macs:.4f}"
    gains = (
        _gain(row.onnxruntime_masked_ms, row.onnxruntime_ms, row.onnxruntime_speedup),
        _gain(row.tvm_masked_ms, row.tvm_ms, row.tvm_speedup),
    )
    return (
        f"| {row.network} | {row.ratio:.0%} | {row.case} | {difference} | {over} | {row.params / 1e6:.3f} M | "
        f"{row.macs / 1e6:,.0f} M | {row.cpu_s:.3f} | {' | '.join(gains)} |"
    )


def _gain(before_ms: float, after_ms: float | None, speedup: float | None) -> str:
    return "" if after_ms is None else f"{before_ms:.2f} → {after_ms:.2f} ({speedup:.2f}x)"


def main() -> int:
    """Measure what the earlier run did not, and write the table."""
    names = [network.name for network in NETWORKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6, help="at least 2")
    parser.add_argument("--repeats", type=int, default=3, help="timed shrinkings of each network")
    parser.add_argument("--keep", type=Path, help="folder for what is compiled, so that another run need not")
    parser.add_argument("--out", type=Path, default=Path("results/published"), help="folder of the .md and .csv")
    options = parser.parse_args()
    chosen = [network for network in NETWORKS if network.name in options.networks]
    if options.rounds < 2:
        parser.error("a ratio takes at least 2 rounds")
    require(parser, lacking(chosen))
    transport = acquired(parser)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = read(options.out / "shrinking.csv")
    with contextlib.closing(transport):
        for network in chosen:
            with contextlib.ExitStack() as stack:
                folder = options.keep and options.keep / network.name
                folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
                folder.mkdir(parents=True, exist_ok=True)
                for part in options.ratios:
                    if any((row.network, row.ratio) == (network.name, part) for row in rows):
                        continue
                    taken = {"threads": options.threads, "turns": options.rounds, "repeats": options.repeats}
                    new = measure(network, part, transport, folder, **taken)
                    rows = sorted([*rows, *new], key=_place)
                    write(rows, options.out / "shrinking.csv")
                    print(*map(_line, new), sep="\n", flush=True)
    (options.out / "shrinking.md").write_text(page(rows, options.threads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
