"""Instructions of one inference of every network on other processors, counted under emulation: the regression guard.

    python benchmarks/speed/instructions.py [--networks resnet20 ...] [--forms dense shrunk] [--targets rpi4 ...]
        [--keep DIR] [--out results/compile]

Counts are exact and need no quiet machine. What moved against the committed table, results/published/instructions.csv,
is printed; a test holds small networks within 1 % of it. Rows of networks that are not counted stay as they are.
Answers under emulation must equal ONNX Runtime's first. Needs qemu-user and torchvision. Start with `count`.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from compile_page import INSTRUCTIONS_FILE, write_page
from peer_cases import CASES, FORMS, LENET5, ONNX_FILE, Case, chosen
from peer_runtimes import compiled
from shrinking_speed import lacking
from starting import require

from edgeprune import compiling, emulation
from edgeprune.errors import EdgepruneError
from edgeprune.matrix import emulated
from edgeprune.matrix.cache import Cache

TARGETS = ("rpi4", "rpi2", "android-arm64")
PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published" / INSTRUCTIONS_FILE
NOISE = 0.001
"""Changes below this part are not told."""


@dataclass(frozen=True)
class Count:
    """Instructions of one inference on one thread, and the size of the program."""

    network: str
    form: str
    target: str
    instructions: int
    program_bytes: int
    weights_bytes: int

    @property
    def what(self) -> tuple[str, str, str]:
        """What was counted."""
        return self.network, self.form, self.target


def count(case: Case, target: str, cache: Cache) -> Count:
    """Compile a network for a target and count.

    Raises:
        CompileError: it cannot be compiled.
        ParityError: it answers otherwise than ONNX Runtime.
        DeviceError: there is no emulator, or it fails under emulation.
    """
    emulator = emulation.find_emulator(compiling.target(target).architecture)
    folder = case.files(cache)
    artifact = compiled(cache, folder / ONNX_FILE, "native", target, 1)
    instructions = emulated.count(cache, artifact, folder, emulator)
    return Count(case.name, case.form, target, instructions, artifact.artifact_bytes, artifact.weights_bytes or 0)


def counted(
    cases: Sequence[Case], targets: Sequence[str], cache: Cache
) -> Iterator[tuple[str, Count | EdgepruneError]]:
    """What was counted, as it comes, and the count, or why there is none; as many at a time as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = {}
        for case in cases:
            case.files(cache)  # once, for all targets
            for target in targets:
                asked[pool.submit(count, case, target, cache)] = f"{case.name} {case.form}, {target}"
        for future in as_completed(asked):
            try:
                yield asked[future], future.result()
            except EdgepruneError as error:
                yield asked[future], error


def read(path: Path) -> list[Count]:
    """The rows of a table; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Count(line["network"], line["form"], line["target"], *(int(line[name]) for name in _NUMBERS))
            for line in csv.DictReader(file)
        ]


_NUMBERS = ("instructions", "program_bytes", "weights_bytes")


def write(rows: Sequence[Count], path: Path) -> None:
    """One line a row, in the order of the networks and targets, whenever each was counted."""
    cases = [(case.name, case.form) for case in (LENET5, *CASES)]
    ordered = sorted(rows, key=lambda row: (cases.index((row.network, row.form)), TARGETS.index(row.target)))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Count)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in ordered)


def moved(before: Sequence[Count], after: Sequence[Count]) -> list[str]:
    """A line for each count that changed by more than `NOISE`."""
    earlier = {row.what: row.instructions for row in before}
    lines = []
    for row in after:
        old = earlier.get(row.what)
        name = f"{row.network} {row.form}, {row.target}"
        if old is None:
            lines.append(f"{name}: {row.instructions:,} instructions, new")
        elif abs(row.instructions / old - 1) > NOISE:
            lines.append(f"{name}: {old:,} -> {row.instructions:,} instructions ({row.instructions / old - 1:+.1%})")
    return lines


def main() -> int:
    """Count, tell what moved, and write the table and the page; exit status 1 if a network could not be counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.name for case in (LENET5, *CASES)))
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--keep", type=Path, help="folder for what is compiled, so that another run need not")
    parser.add_argument("--out", type=Path, default=Path("results/compile"), help="folder of the .csv and .md")
    options = parser.parse_args()
    cases = chosen(options.networks, options.forms, (LENET5, *CASES))
    require(parser, lacking([case.network for case in cases], ()))
    torch.set_num_threads(1)
    published, failures = read(PUBLISHED), 0
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cache = Cache(options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for what, row in counted(cases, options.targets, cache):
            if isinstance(row, EdgepruneError):
                failures += 1
                print(f"{what}: {row.message} {row.hint or ''}", flush=True)
                continue
            rest = [other for other in read(options.out / INSTRUCTIONS_FILE) if other.what != row.what]
            write([*rest, row], options.out / INSTRUCTIONS_FILE)
            print(*(moved(published, [row]) or [f"{what}: as it was"]), sep="\n", flush=True)
    write_page(options.out)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
