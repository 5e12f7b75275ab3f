"""edgeprune's compiled code against ONNX Runtime, OpenVINO, ncnn and MNN: latencies in one interleaved run.

    python benchmarks/speed/peers.py [--networks resnet18 ...] [--forms dense shrunk] [--threads 1 2] [--rounds 12]
        [--runtimes ...] [--keep DIR] [--out results/compile]

Each runtime holds the network in a process of its own on the same cores; rounds of random order pass from one to the
next. An answer that differs from ONNX Runtime's is not timed: by more than 1e-4 of its largest number for ours, by more
than 1e-2 for others, whose Winograd transforms round more, while a network that was converted wrongly is far off.

Rows are written to latency.csv after each network and number of threads; the same command again goes on where it
stopped, and measures again what was measured with another compiler of edgeprune. compile.md is made of all that lies in
the folder: instructions.py and footprint.py put the other tables there. Needs `pip install 'edgeprune[bench]'` and
torchvision. Start with `measure`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from compile_page import LATENCY_FILE, write_page
from peer_cases import CASES, FORMS, ONNX_FILE, Case, chosen
from peer_rows import Row, by_unit, read, write
from peer_runtimes import OURS, RUNTIMES, code, missing, prepared, start
from shrinking_speed import lacking
from starting import acquired
from tvm_vs_onnxruntime import Contender, cores

from edgeprune.errors import EdgepruneError, ParityError
from edgeprune.exporting import PARITY_TOLERANCE
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.stages import INPUT_FILE, REFERENCE_FILE
from edgeprune.transport import Transport

PEERS_TOLERANCE = 1e-2
SETTLE_SECONDS = 0.1
"""Before a runtime is timed: threads of the one before that still wait for work have then gone to sleep."""


def measure(
    case: Case, threads: int, runtimes: Sequence[str], transport: Transport, cache: Cache, rounds: int
) -> list[Row]:
    """Compile one network for all runtimes and time them in turn: one row a runtime."""
    folder = case.files(cache)
    wanted, side = np.load(folder / REFERENCE_FILE), case.network.size
    image = np.fromfile(folder / INPUT_FILE, np.float32).reshape(1, case.channels, side, side)
    given = (transport.push([folder / INPUT_FILE])[0], image)
    files = prepared(cache, folder / ONNX_FILE, image.shape, runtimes, threads)
    rows: dict[str, Row] = {}
    latencies: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        contenders = {}
        for name in runtimes:
            row = Row(case.name, case.form, threads, name, "", code(), "ok")
            try:
                model = _pushed(transport, files[name])
                worker = stack.enter_context(start(transport, name, model, threads, cores(transport, threads)))
                tolerance = PARITY_TOLERANCE if name in OURS else PEERS_TOLERANCE
                contenders[name] = Contender(worker, model, given, wanted, threads, tolerance)
                told = " ".join(f"{part} {number}" for part, number in worker.versions.items())
                rows[name] = replace(row, version=told, difference=contenders[name].error)
                latencies[name] = []
            except EdgepruneError as error:
                rows[name] = _failed(row, error)
        order = random.Random(0)
        for _ in range(rounds):
            for name in order.sample(list(latencies), len(latencies)):
                try:
                    time.sleep(SETTLE_SECONDS)
                    latencies[name].append(contenders[name].latency_ns() / 1e6)
                except EdgepruneError as error:
                    rows[name] = _failed(rows[name], error)
                    del latencies[name]
    return [replace(row, round_ms=tuple(latencies.get(name, ()))) for name, row in rows.items()]


def _pushed(transport: Transport, files: tuple[Path, ...] | EdgepruneError) -> str:
    if isinstance(files, EdgepruneError):
        raise files
    return transport.push(files)[0]


def _failed(row: Row, error: EdgepruneError) -> Row:
    reason = re.sub(r"/\S*/", "", error.message)  # where a file lies is nobody's business
    return replace(row, status="wrong" if isinstance(error, ParityError) else "failed", reason=reason)


def is_done(rows: Sequence[Row], case: Case, threads: int, runtimes: Sequence[str], rounds: int) -> bool:
    """Whether a unit's rows are there for all these runtimes and rounds, made with the compiler as it is."""
    unit = by_unit(rows).get((case.name, case.form, threads), {})
    made = [unit[name] for name in runtimes if name in unit and unit[name].code == code()]
    return len(made) == len(runtimes) and all(row.status != "ok" or len(row.round_ms) >= rounds for row in made)


def main() -> int:
    """Measure what the earlier run did not, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--rounds", type=int, default=12, help="intervals take at least 2")
    parser.add_argument("--keep", type=Path, help="folder for what is compiled, so that another run need not")
    parser.add_argument("--out", type=Path, default=Path("results/compile"), help="folder of the .csv and .md")
    options = parser.parse_args()
    cases = chosen(options.networks, options.forms)
    absent = [*missing(options.runtimes), *lacking([case.network for case in cases], ())]
    if absent:
        parser.error(f"needs {', '.join(absent)}: see the top of this file")
    transport = acquired(parser)
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(transport), contextlib.ExitStack() as stack:
        cache = Cache(options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for case in cases:
            for threads in options.threads:
                rows = read(options.out / LATENCY_FILE)
                if is_done(rows, case, threads, options.runtimes, options.rounds):
                    continue
                new = measure(case, threads, options.runtimes, transport, cache, options.rounds)
                rest = [row for row in rows if row.unit != (case.name, case.form, threads)]
                write([*rest, *new], options.out / LATENCY_FILE)
                print(f"{case.name} {case.form}, {threads} threads:", *map(_told, new), flush=True)
    write_page(options.out)
    return 0


def _told(row: Row) -> str:
    return f"{row.runtime} " + (f"{row.latency_ms:.3g} ms" if row.status == "ok" else f"{row.status} ({row.reason})")


if __name__ == "__main__":
    sys.exit(main())
