"""edgeprune's shrinking against torch-pruning's: CPU time for the same networks, in turn, in one process.

    python benchmarks/speed/shrinking_speed.py [--networks resnet50 vgg16_bn] [--ratio 0.5] [--repeats 5] [--csv FILE]

edgeprune takes a masked network (random filters zeroed) and makes, checks and reports on the shrunk one. torch-pruning
takes the dense network, builds its dependency graph and prunes the same part of the filters by their L1 norm; copies
that it needs are made outside the clock. Both run on one thread, edgeprune first in every second round; the first round
warms up and is not counted. The table holds medians and the median of the rounds' quotients. Start with `compare`.

Needs three packages that edgeprune itself does not, without their dependencies, which would bring another torch:
pip install --no-deps torch-pruning 'torchvision==0.28.*' timm
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import edgeprune as ep

GOAL = 0.5
"""Largest part of torch-pruning's CPU time that edgeprune may take."""

PACKAGES = {"torch_pruning": "torch-pruning", "torchvision": "'torchvision==0.28.*'", "timm": "timm"}


@dataclass(frozen=True)
class Network:
    """A network of the comparison: who builds it, and the side of its square colour image."""

    name: str
    package: str
    size: int = 224

    def build(self) -> nn.Module:
        """The network with fresh weights, in eval mode."""
        if self.package == "edgeprune":
            return ep.models.build(self.name).eval()
        package = importlib.import_module(self.package)
        build = package.create_model if self.package == "timm" else package.models.get_model
        network: nn.Module = build(self.name)
        return network.eval()


NETWORKS = (
    Network("resnet56", "edgeprune", 32),
    Network("resnet18", "torchvision"),
    Network("resnet50", "torchvision"),
    Network("vgg16_bn", "torchvision"),
    Network("densenet121", "torchvision"),
    Network("mobilenet_v2", "torchvision"),
    Network("hrnet_w18", "timm"),
)


@dataclass(frozen=True)
class Row:
    """The result for one network: CPU seconds of the process and elapsed seconds, medians of the rounds."""

    network: str
    rounds: int
    edgeprune_cpu_s: float
    torch_pruning_cpu_s: float
    cpu_ratio: float
    edgeprune_wall_s: float
    torch_pruning_wall_s: float


Seconds = tuple[float, float]
"""CPU time and elapsed time."""


def timed(action: Callable[[], object]) -> Seconds:
    """CPU and elapsed seconds of one call, which pays for the cycles that it leaves and for no other's."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    gc.collect(1)
    return time.process_time() - cpu, time.perf_counter() - wall


@torch.no_grad()
def masked(model: nn.Module, ratio: float, seed: int = 0) -> nn.Module:
    """A copy with a random part of each convolution's filters zeroed, and their batch normalisations' shifts too."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    dead = torch.zeros(0, dtype=torch.bool)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            dead = torch.rand(module.out_channels, generator=generator) < ratio
            module.weight[dead] = 0.0
            if module.bias is not None:
                module.bias[dead] = 0.0
        elif isinstance(module, nn.BatchNorm2d) and len(dead) == module.num_features:
            module.bias[dead] = 0.0
    return model


def prune_by_torch_pruning(model: nn.Module, image: torch.Tensor, ratio: float) -> nn.Module:
    """Prune a model in place: dependency graph, L1 norms, and all but the classes cut."""
    import torch_pruning

    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    torch_pruning.pruner.BasePruner(
        model, image, importance=importance, pruning_ratio=ratio, ignored_layers=[last]
    ).step()  # fmt: skip
    return model


def rounds(actions: Sequence[Callable[[], Callable[[], object]]], repeats: int) -> Iterator[list[Seconds]]:
    """Time every action once a round, each second round in the other order; the first round is not counted.

    Args:
        actions: Each prepares one run, untimed, and returns what is timed.
        repeats: Rounds to count.
    """
    for number in range(repeats + 1):
        order = range(len(actions)) if number % 2 else range(len(actions))[::-1]
        taken = {place: timed(actions[place]()) for place in order}
        if number:
            yield [taken[place] for place in range(len(actions))]


def summary(network: str, taken: Sequence[Sequence[Seconds]]) -> Row:
    """The medians of rounds of [edgeprune, torch-pruning]."""
    (our_cpu, our_wall), (their_cpu, their_wall) = (
        [[one[place][kind] for one in taken] for kind in (0, 1)] for place in (0, 1)
    )
    quotient = median(ours / theirs for ours, theirs in zip(our_cpu, their_cpu, strict=True))
    return Row(
        network, len(taken), median(our_cpu), median(their_cpu), quotient, median(our_wall), median(their_wall)
    )  # fmt: skip


def compare(network: Network, ratio: float, repeats: int) -> Row:
    """Shrink one network by both in turn."""
    torch.manual_seed(0)
    dense, image = network.build(), torch.randn(1, 3, network.size, network.size)
    zeroed = masked(dense, ratio)

    def ours() -> Callable[[], object]:
        return lambda: ep.shrink(zeroed, image)

    def theirs() -> Callable[[], object]:
        victim = copy.deepcopy(dense)
        return lambda: prune_by_torch_pruning(victim, image, ratio)

    return summary(network.name, list(rounds([ours, theirs], repeats)))


def table(rows: Sequence[Row]) -> str:
    """The rows as a plain table, and whether the goal is met."""
    lines = [f"{'network':14} {'edgeprune CPU s':>16} {'torch-pruning CPU s':>20} {'ratio':>6} {'wall s':>16}"]
    for row in rows:
        wall = f"{row.edgeprune_wall_s:.3f} / {row.torch_pruning_wall_s:.3f}"
        cpu = f"{row.edgeprune_cpu_s:16.3f} {row.torch_pruning_cpu_s:20.3f}"
        lines.append(f"{row.network:14} {cpu} {row.cpu_ratio:6.2f} {wall:>16}")
    worst = max(rows, key=lambda row: row.cpu_ratio)
    verdict = "met" if worst.cpu_ratio <= GOAL else "missed"
    lines.append(f"Goal, at most {GOAL} on every network: {verdict}; worst {worst.cpu_ratio:.2f} ({worst.network}).")
    return "\n".join(lines)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a network, under the names of `Row`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def lacking(networks: Sequence[Network], others: Sequence[str] = ("torch_pruning",)) -> list[str]:
    """What to install before these networks can be compared, by the names that pip knows."""
    needed = [*others, *(network.package for network in networks if network.package != "edgeprune")]
    return [PACKAGES[package] for package in dict.fromkeys(needed) if not _imports(package)]


def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    except RuntimeError:  # torchvision beside a torch that it was not built for; no network here uses its operators
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        for module in [module for module in sys.modules if module.split(".")[0] == package]:
            del sys.modules[module]
        importlib.import_module(package)
    return True


def _arguments(given: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [network.name for network in NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--ratio", type=float, default=0.5, help="part of the filters that goes (default 0.5)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that are counted (default 5)")
    parser.add_argument("--csv", type=Path, help="file for the rows")
    options = parser.parse_args(given)
    if not 0.0 < options.ratio < 1.0:
        parser.error(f"--ratio {options.ratio}: must lie between 0 and 1")
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be at least 1")
    return options


def main(given: Sequence[str] | None = None) -> int:
    """Run the comparison; exit status 1 if the goal is missed on a network, 2 if a package lacks."""
    options = _arguments(given)
    networks = [network for network in NETWORKS if network.name in options.networks]
    missing = lacking(networks)
    if missing:
        print(f"needs {', '.join(missing)}: pip install --no-deps {' '.join(missing)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    rows = []
    for network in networks:
        rows.append(compare(network, options.ratio, options.repeats))
        print(f"{rows[-1].cpu_ratio:.2f}  {network.name}", flush=True)
    print(table(rows))
    if options.csv:
        write_csv(rows, options.csv)
    return int(any(row.cpu_ratio > GOAL for row in rows))


if __name__ == "__main__":
    sys.exit(main())
