"""Size and memory of static programs on this machine, beside a process of ONNX Runtime, or on another device.

    python benchmarks/speed/footprint.py [--networks resnet20 ...] [--forms dense shrunk] [--keep DIR]
        [--machine local] [--target host] [--out results/compile]

A program's size beyond its weights is what the code takes. Its memory beyond weights, arena and workspace is what the
C runtime, stacks and libc take. Both processes report their own peak of resident memory after 20 inferences on one
thread. `--machine virtual-pi-vm --target rpi4` reads a board's figures in a whole emulated machine, which
`edgeprune devices up virtual-pi-vm` starts; under emulation of single programs memory is the emulator's. Rows go to
footprint.csv; those of networks that are not measured stay. Start with `measure`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from compile_page import FOOTPRINT_FILE, write_page
from peer_cases import CASES, FORMS, ONNX_FILE, Case, chosen
from peer_runtimes import compiled, start
from shrinking_speed import lacking
from starting import acquired, require
from tvm_vs_onnxruntime import cores

from edgeprune import compiling
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.stages import INPUT_FILE
from edgeprune.transport import LOCAL, Transport

CALLS = 20
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Footprint:
    """One network's program, and what two processes that run it hold; bytes. None: that one was not run."""

    machine: str
    target: str
    network: str
    form: str
    program_bytes: int
    weights_bytes: int
    arena_bytes: int
    workspace_bytes: int
    native_rss_bytes: int
    onnxruntime_rss_bytes: int | None = None

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """What the row is about: an earlier row of the same gives way to it."""
        return self.machine, self.target, self.network, self.form


def measure(case: Case, transport: Transport, cache: Cache, target: str) -> Footprint:
    """Compile a network for a machine and read what its process takes there; on this one, beside ONNX Runtime's.

    Raises:
        EdgepruneError: it cannot be compiled or run.
    """
    folder = case.files(cache)
    artifact = compiled(cache, folder / ONNX_FILE, "native", target, 1)
    program = transport.push([artifact.model])[0]
    channel = transport.run([program, "facts"], None)
    try:
        facts = channel.receive(ANSWER_SECONDS)
    finally:
        channel.stop()
    files = {"native": artifact.model}
    if transport.is_this_machine:
        files["onnxruntime"] = folder / ONNX_FILE
    peaks: dict[str, int] = {}
    for runtime, file in files.items():
        model = transport.push([file])[0]
        with start(transport, runtime, model, 1, cores(transport, 1)) as worker:
            worker.load(model, 1)
            side = case.network.size
            image = np.fromfile(folder / INPUT_FILE, np.float32).reshape(1, case.channels, side, side)
            worker.bind([(transport.push([folder / INPUT_FILE])[0], image)])
            peaks[f"{runtime}_rss_bytes"] = worker.peak_rss_bytes(CALLS)
    planned = {name: int(facts[name]) for name in ("weights_bytes", "arena_bytes", "workspace_bytes")}
    return Footprint(transport.name, target, case.name, case.form, artifact.artifact_bytes, **planned, **peaks)


def read(path: Path) -> list[Footprint]:
    """The rows of an earlier run."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names, sizes = [field.name for field in fields(Footprint)[:4]], [field.name for field in fields(Footprint)[4:]]
    rows = []
    for line in lines:
        values: dict[str, Any] = {name: line[name] for name in names}
        values |= {name: int(line[name]) if line[name] else None for name in sizes}
        rows.append(Footprint(**values))
    return rows


def write(rows: Sequence[Footprint], path: Path) -> None:
    """One line a row, under the names of `Footprint`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Footprint)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> int:
    """Measure, and write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--keep", type=Path, help="folder for what is compiled, so that another run need not")
    parser.add_argument("--out", type=Path, default=Path("results/compile"), help="folder of the .csv and .md")
    parser.add_argument("--machine", default=LOCAL, help="a device as a matrix names it")
    parser.add_argument("--target", choices=compiling.targets(), default="host", help="what programs are compiled for")
    options = parser.parse_args()
    cases = chosen(options.networks, options.forms)
    require(parser, lacking([case.network for case in cases], ()))
    transport = acquired(parser, options.machine)
    if str(transport.facts()["emulated"]).startswith("qemu-user"):
        parser.error(f"memory read on {options.machine} is mostly the emulator's")
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(transport), contextlib.ExitStack() as stack:
        cache = Cache(options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for case in cases:
            row = measure(case, transport, cache, options.target)
            earlier = [other for other in read(options.out / FOOTPRINT_FILE) if other.subject != row.subject]
            write([*earlier, row], options.out / FOOTPRINT_FILE)
            print(row, flush=True)
    write_page(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
