"""Gathered kernel columns and smaller kernels, timed against the whole convolution: where do they begin to pay?

    python benchmarks/speed/columns.py [--rounds 8] [--out results/published]

A convolution has a share of its kernel columns left, random ones. It runs once as it is, zeros included, and once with
these columns gathered in front of a 1x1 convolution (`edgeprune.shrink(columns="gather")`), on one thread. Where both
take equally long is read off between the shares. Where the columns left are a smaller kernel, it runs as that. The
costs of edgeprune/shrinking/kernel_forms.py come from this table. Start with `site_lines`.
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

    def gathered(self, share: float) -> nn.Module:
        """The convolution with a share of its columns left, random ones, the others zero."""
        columns = self.channels * self.kernel**2
        alive = torch.zeros(columns)
        alive[torch.randperm(columns, generator=torch.Generator().manual_seed(0))[: round(share * columns)]] = 1.0
        return self._layer(alive.view(self.channels, self.kernel, self.kernel))

    def trimmed(self, rows: int, columns: int) -> nn.Module:
        """The convolution with a smaller kernel's weights left, the others zero."""
        alive = torch.zeros(self.channels, self.kernel, self.kernel)
        alive[:, :rows, :columns] = 1.0
        return self._layer(alive)

    def _layer(self, alive: torch.Tensor) -> nn.Module:
        """Random weights where `alive`, [channels in, rows, columns], is 1."""
        width, kernel = self.channels, self.kernel
        layer = nn.Conv2d(width, width, kernel, stride=self.stride, padding=kernel // 2, bias=False)
        weights = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            layer.weight.copy_(weights * alive)
        return nn.Sequential(layer).eval()


SITES = (
    Site(16, 32), Site(32, 32), Site(64, 56), Site(128, 28), Site(256, 14), Site(64, 56, stride=2),
    Site(32, 32, kernel=5),
)  # fmt: skip
SHARES = (0.1, 0.2, 0.35, 0.5, 0.7)
"""Of the columns that are left."""
TRIMMED = ((2, 3), (2, 2), (1, 3), (1, 1))
"""Rows and columns that are left of the kernel."""
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
    networks = {WHOLE: site.gathered(1.0)}
    for share in SHARES:
        networks[f"{share}"] = ep.shrink(site.gathered(share), image, columns="gather").model
    for rows, columns in TRIMMED:
        networks[f"{rows}x{columns}"] = ep.shrink(site.trimmed(rows, columns), image, columns="gather").model
    pairs = [(name, runtime) for name in networks for runtime in RUNTIMES]
    with tempfile.TemporaryDirectory() as folder:
        latency = timed_in_turn(networks, pairs, image, transport, Path(folder), threads=1, turns=turns)
    return [_line(site, runtime, latency) for runtime in RUNTIMES]


def _line(site: Site, runtime: str, latency: Latencies) -> str:
    whole = latency[WHOLE, runtime]
    found = {
        name: ratio(taken, whole) for (name, other), taken in latency.items() if other == runtime and name != WHOLE
    }
    cells = [f"{middle:.2f} ({low:.2f} - {high:.2f})" for middle, low, high in found.values()]
    even = break_even([(share, found[f"{share}"][0]) for share in SHARES])
    cells.insert(len(SHARES), "" if even is None else f"{even:.2f}")
    return f"| {site.what} | {runtime} | {1000 * median(whole):.0f} | {' | '.join(cells)} |"


def page(transport: Transport, turns: int) -> str:
    """The table as Markdown; each line is printed when it is measured."""
    names = [f"{share:.0%}" for share in SHARES] + ["break-even"] + [f"{rows}x{columns}" for rows, columns in TRIMMED]
    lines = [
        "# Kernel columns: gathered, cut off, or left as zeros",
        "",
        "Made by `python benchmarks/speed/columns.py`: a convolution, one thread. The whole in µs; by the whole, with "
        "the 95 % interval over rounds, a share of its columns gathered, and the share at which both take equal times; "
        "then a smaller kernel in its place.",
        "",
        f"| convolution | runtime | whole | {' | '.join(names)} |",
        "| --- " * (len(names) + 3) + "|",
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
