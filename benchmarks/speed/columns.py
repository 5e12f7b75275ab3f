"""Gathered kernel columns, timed against the whole convolution: where does gathering begin to pay?

    python benchmarks/speed/columns.py [--rounds 8] [--out results/published]

A convolution has a share of its kernel columns left, random ones. It runs once as it is, zeros included, and once with
these columns gathered in front of a 1x1 convolution (`edgeprune.shrink(columns="gather")`), on one thread. Where both
take equally long is read off between the shares. The costs of edgeprune/shrinking/kernel_forms.py come from this table.
Start with `site_lines`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from interleaved import RUNTIMES, Latencies, timed_in_turn
from starting import acquired
from torch import nn
from tvm_vs_onnxruntime import ratio

import edgeprune as ep
from edgeprune.transport import Transport


@dataclass(frozen=True)
class Site:
    """A convolution: channels in and out, the side of its image and of its kernel, its stride."""

    channels: int
    side: int
    kernel: int = 3
    stride: int = 1

    @property
    def what(self) -> str:
        """As the table names it."""
        stride = "" if self.stride == 1 else f" / {self.stride}"
        return f"{self.kernel}x{self.kernel}{stride}, {self.channels} x {self.side} x {self.side}"

    def layer(self, share: float) -> nn.Module:
        """The convolution with a share of its columns left, random ones, the others zero."""
        generator = torch.Generator().manual_seed(0)
        layer = nn.Conv2d(
            self.channels, self.channels, self.kernel, stride=self.stride, padding=self.kernel // 2, bias=False
        )
        columns = self.channels * self.kernel**2
        alive = torch.zeros(columns)
        alive[torch.randperm(columns, generator=generator)[: round(share * columns)]] = 1.0
        with torch.no_grad():
            weights = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(weights * alive.view(1, *layer.weight.shape[1:]))
        return nn.Sequential(layer).eval()


SITES = (
    Site(16, 32), Site(32, 32), Site(64, 56), Site(128, 28), Site(256, 14), Site(64, 56, stride=2),
    Site(32, 32, kernel=5),
)  # fmt: skip
SHARES = (0.1, 0.2, 0.35, 0.5, 0.7)
"""Of the columns that are left."""
WHOLE = "whole"


def break_even(ratios: Sequence[tuple[float, float]]) -> float | None:
    """The share at which gathered columns take as long as the whole, on the lines between measured shares.

    Args:
        ratios: (share, latency gathered by whole), shares rising.

    >>> break_even([(0.1, 0.5), (0.3, 1.5)])
    0.2
    >>> break_even([(0.1, 1.5), (0.3, 2.0)]) is None
    True
    """
    for (share, low), (next_share, high) in pairwise(ratios):
        if low <= 1.0 < high:
            return round(share + (1.0 - low) / (high - low) * (next_share - share), 3)
    return None


def site_lines(site: Site, transport: Transport, turns: int) -> list[str]:
    """Lines of the table for one convolution, one for each runtime."""
    image = torch.randn(1, site.channels, site.side, site.side)
    networks = {WHOLE: site.layer(1.0)}
    for share in SHARES:
        networks[f"{share}"] = ep.shrink(site.layer(share), image, columns="gather").model
    pairs = [(name, runtime) for name in networks for runtime in RUNTIMES]
    with tempfile.TemporaryDirectory() as folder:
        latency = timed_in_turn(networks, pairs, image, transport, Path(folder), threads=1, turns=turns)
    return [_line(site, runtime, latency) for runtime in RUNTIMES]


def _line(site: Site, runtime: str, latency: Latencies) -> str:
    whole = latency[WHOLE, runtime]
    found = {share: ratio(latency[f"{share}", runtime], whole) for share in SHARES}
    cells = [f"{middle:.2f} ({low:.2f} - {high:.2f})" for middle, low, high in found.values()]
    even = break_even([(share, middle) for share, (middle, _, _) in found.items()])
    # the cost of a column is its filters' multiply-adds and a copy: share * (filters + copy) = filters
    cells += ["", ""] if even is None else [f"{even:.2f}", f"{site.channels / even - site.channels:.0f}"]
    return f"| {site.what} | {runtime} | {1000 * median(whole):.0f} | {' | '.join(cells)} |"


def page(transport: Transport, turns: int) -> str:
    """The table as Markdown; each line is printed when it is measured."""
    shares = " | ".join(f"{share:.0%}" for share in SHARES)
    lines = [
        "# Kernel columns: gathered, or left as zeros",
        "",
        "Made by `python benchmarks/speed/columns.py`: a convolution, one thread, with a share of its kernel "
        "columns left. The whole in µs; gathered columns by the whole, with the 95 % interval over rounds; the share "
        "at which both take equally long, and what a column's copy costs then, in multiply-adds for each number.",
        "",
        f"| convolution | runtime | whole | {shares} | break-even | copy |",
        "| --- " * (len(SHARES) + 5) + "|",
    ]
    print(*lines, sep="\n", flush=True)
    for site in SITES:
        measured = site_lines(site, transport, turns)
        print(*measured, sep="\n", flush=True)
        lines += measured
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table; with --out write it to columns.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, help="folder for columns.md")
    options = parser.parse_args()
    with contextlib.closing(acquired(parser)) as transport:
        text = page(transport, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "columns.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
