"""The forms of an indexation-addition, timed: sums alone, and whole shrunk networks.

    python benchmarks/speed/additions.py [--networks resnet56 resnet18 resnet50] [--ratio 0.5] [--out results/published]

Sums alone run in ONNX Runtime: an operand of half the sum's channels, random ones or the last ones, meets one that
holds all. Whole networks run in ONNX Runtime and TVM, every sum in one form: "gather" and "auto" are those of
`edgeprune.shrink`; "zero rows" computes every channel that a sum keeps in both of its operands; "ScatterND" is how the
paper's own code spreads an operand; "aligned" is auto with widths of whole vectors. Each form has a worker process;
rounds of random order alternate between them. Start with `networks` and `sums`. Needs the packages
that shrinking_speed.py needs.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from interleaved import RUNTIMES, timed_in_turn
from masked_cases import masked, randomised
from shrinking_speed import NETWORKS, Network, lacking
from starting import acquired, require
from torch import Tensor, nn
from tvm_vs_onnxruntime import ratio

import edgeprune as ep
from edgeprune.shrinking import Gather, IndexAdd
from edgeprune.shrinking.constants import propagate
from edgeprune.shrinking.copying import private_copy
from edgeprune.shrinking.graph import trace
from edgeprune.shrinking.liveness import find_live
from edgeprune.shrinking.plan import Analysis, arrange
from edgeprune.shrinking.rewrite import rewrite
from edgeprune.shrinking.verify import verify
from edgeprune.transport import Transport

SITES = ((16, 32), (64, 56), (256, 56), (512, 28), (2048, 7))
"""Channels of a sum and the side of its image."""


class Scatter(nn.Module):
    """A `Gather` that fills up with zeros, as a scatter into a tensor of zeros: one ScatterND in ONNX."""

    def __init__(self, gather: Gather) -> None:
        super().__init__()
        self.width = len(gather.index)
        places = torch.nonzero(gather.index < gather.channels).flatten()
        self.register_buffer("places", places)
        self.register_buffer("sources", gather.index[places])

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, H, W] to [1, K, H, W]."""
        picked = x.squeeze(0).index_select(0, self.get_buffer("sources"))
        zeros = x.new_zeros(self.width, x.shape[2], x.shape[3])
        return zeros.index_put((self.get_buffer("places"),), picked).unsqueeze(0)


def scattered(model: nn.Module) -> nn.Module:
    """A copy of a network of gathers in which both operands of each indexation-addition are scattered."""
    model = private_copy(model)
    widths: dict[str, int] = {}
    handles = [
        module.register_forward_hook(lambda _m, _x, y, name=name: widths.update({name: y.shape[1]}))
        for name, module in model.named_modules()
        if isinstance(module, IndexAdd)
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    for name, width in widths.items():
        addition = model.get_submodule(name)
        for side in ("left", "right"):
            gather = getattr(addition, side) or Gather(torch.arange(width), width)
            setattr(addition, side, Scatter(gather))
    return model


def zero_rows(model: nn.Module, image: Tensor) -> nn.Module:
    """The shrunk network in which both operands of every sum hold all that it keeps."""
    zeroed = private_copy(model).eval()
    network = trace(zeroed, (image,))
    known = propagate(network)
    sums = {(site.node, place) for site in network.sites if site.operator.is_addition for place in (0, 1)}
    least, live = find_live(network, known).decisions, find_live(network, known, sums)
    held = {node: decision.keep & ~least[node].keep for node, decision in live.decisions.items()}
    analysis = Analysis(network, known.constants, known.multiples, live.decisions, live.asked, held)
    plan = arrange(analysis, reorder=False)
    shrunk, _ = rewrite(plan, type(model).__name__)
    verify(zeroed, shrunk, (image,))
    return shrunk


def networks(network: Network, part: float, case: str, transport: Transport, turns: int) -> list[str]:
    """Lines of the table for one network: each form's latency by that of two ScatterND."""
    image = torch.randn(1, 3, network.size, network.size)
    zeroed = masked(randomised(network), part, case, image)
    gathered = ep.shrink(zeroed, image, additions="gather").model
    models = {
        "ScatterND": scattered(gathered),
        "gather": gathered,
        "auto": ep.shrink(zeroed, image).model,
        "zero rows": zero_rows(zeroed, image),
        "aligned to 8": ep.shrink(zeroed, image, align=8).model,
        "aligned to 16": ep.shrink(zeroed, image, align=16).model,
    }
    with tempfile.TemporaryDirectory() as folder:
        # TVM has no kernel for ScatterND here
        pairs = [(form, runtime) for form in models for runtime in RUNTIMES if (form, runtime) != ("ScatterND", "tvm")]
        latency = timed_in_turn(models, pairs, image, transport, Path(folder), threads=1, turns=turns)
    lines = []
    for form, model in models.items():
        cells = [f"{ep.count(model, image).params / 1e6:.3f} M"]
        for runtime, base in (("onnxruntime", "ScatterND"), ("tvm", "gather")):
            if (form, runtime) not in latency:
                cells.append("")
                continue
            taken = latency[form, runtime]
            middle, low, high = ratio(taken, latency[base, runtime])
            cells.append(f"{median(taken):.2f} ({middle:.2f}, {low:.2f} - {high:.2f})")
        lines.append(f"| {network.name}, {part:.0%}, {case} | {form} | {' | '.join(cells)} |")
    return lines


class Spread(nn.Module):
    """One operand in some form, added to one that holds all channels of the sum."""

    def __init__(self, form: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.form, self.other = form, other

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[1, A, H, W] and [1, C, H, W] to [1, C, H, W]."""
        spread: Tensor = self.form(a) + self.other(b)
        return spread


def forms(channels: int) -> dict[str, tuple[nn.Module, int]]:
    """For each form of a sum of so many channels the module, and the channels of its first operand."""
    half, generator = channels // 2, torch.Generator().manual_seed(0)
    spread = torch.full((channels,), half)
    spread[torch.randperm(channels, generator=generator)[:half].sort().values] = torch.arange(half)
    last = torch.cat([torch.full((channels - half,), half), torch.arange(half)])
    zero, every, same = torch.zeros(1, 1, 1, 1), torch.arange(channels), nn.Identity()
    return {
        "plain": (Spread(same, same), channels),
        "one run, padded": (Spread(Gather(last, half, zero), same), half),
        "gathered": (Spread(Gather(spread, half, zero), same), half),
        "two ScatterND": (Spread(Scatter(Gather(spread, half, zero)), Scatter(Gather(every, channels))), half),
    }


def sums(turns: int) -> list[str]:
    """Lines of the table of sums alone: microseconds of each form in ONNX Runtime, one thread."""
    lines = []
    for channels, side in SITES:
        with tempfile.TemporaryDirectory() as folder:
            calls = {}
            for name, (module, width) in forms(channels).items():
                example = (torch.randn(1, width, side, side), torch.randn(1, channels, side, side))
                calls[name] = session(module, example, Path(folder) / "sum.onnx")
        taken: dict[str, list[float]] = {name: [] for name in calls}
        order = random.Random(0)
        for _ in range(turns):
            for name in order.sample(list(calls), len(calls)):
                taken[name].append(microseconds(calls[name]))
        cells = " | ".join(f"{median(times):.1f}" for times in taken.values())
        lines.append(f"| {channels} x {side} x {side} | {cells} |")
    return lines


def session(module: nn.Module, example: tuple[Tensor, Tensor], path: Path) -> Callable[[], object]:
    """A call of the module in ONNX Runtime on one thread."""
    ep.export_onnx(module.eval(), example, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    feed = {put.name: x.numpy() for put, x in zip(loaded.get_inputs(), example, strict=True)}
    return lambda: loaded.run(None, feed)


def microseconds(call: Callable[[], object], seconds: float = 0.05) -> float:
    """Mean time of a call, over a group of calls that takes about so long."""
    call()
    start = time.perf_counter()
    call()
    group = max(1, int(seconds / max(time.perf_counter() - start, 1e-6)))
    start = time.perf_counter()
    for _ in range(group):
        call()
    return (time.perf_counter() - start) / group * 1e6


def main() -> int:
    """Print both tables; with --out write them to additions.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [network.name for network in NETWORKS]
    parser.add_argument("--networks", nargs="*", choices=names, default=["resnet56", "resnet18", "resnet50"])
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--cases", nargs="+", choices=("A", "B"), default=["A"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, help="folder for additions.md")
    options = parser.parse_args()
    chosen = [network for network in NETWORKS if network.name in options.networks]
    require(parser, lacking(chosen))
    transport = acquired(parser)
    with contextlib.closing(transport):
        text = page(chosen, options.ratio, options.cases, transport, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "additions.md").write_text(text)
    return 0


def page(chosen: Sequence[Network], part: float, cases: Sequence[str], transport: Transport, turns: int) -> str:
    """Both tables as Markdown; each line is printed when it is measured."""
    lines: list[str] = []

    def add(*more: str) -> None:
        print(*more, sep="\n", flush=True)
        lines.extend(more)

    add(
        "# Indexation-additions: the forms of a sum",
        "",
        "Made by `python benchmarks/speed/additions.py`. A sum alone, one operand holding half of the channels, µs in "
        "ONNX Runtime, 1 thread:",
        "",
        f"| sum | {' | '.join(forms(16))} |",
        "| --- " * (len(forms(16)) + 1) + "|",
        *sums(turns),
        "",
        "Shrunk networks, every sum in one form: ms, and by two ScatterND (ONNX Runtime) or by gathers (TVM) with the "
        "95 % interval over rounds:",
        "",
        "| network | form | parameters | ONNX Runtime | TVM |",
        "| --- | --- | --- | --- | --- |",
    )
    for network in chosen:
        for case in cases:
            add(*networks(network, part, case, transport, turns))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
