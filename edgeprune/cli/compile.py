"""`edgeprune compile MODEL.onnx --target rpi4 -o DIR`: one static program that runs the network on the device.

Nothing has to be installed there: copy `DIR/program`, and run it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.compiling import Artifact

_SEVERAL = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL.onnx", type=Path, help="a float32 network with static shapes")
    parser.add_argument(
        "--target", metavar="NAME", default="host", help="a name of `edgeprune targets`, or a file of your own (.yaml)"
    )
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder for the program")
    parser.add_argument(
        "--threads", metavar="N", type=int, default=_SEVERAL,
        help="1 makes code for one thread, about 1 %% faster there; else (default) the program takes --threads 1..64",
    )  # fmt: skip
    parser.add_argument(
        "--tuned", metavar="DIR", type=Path, help="use what `edgeprune tune` found for the target and as many --threads"
    )
    parser.add_argument(
        "--emit", choices=("program", "c"), default="program",
        help="program (default), or c: self-contained C sources for a tool-chain of your own, slower code",
    )  # fmt: skip


def carry_out(given: argparse.Namespace) -> int:
    """Compile, and print what was made and how it is run."""
    from rich.console import Console

    from edgeprune import compiling

    if given.threads < 1:
        raise UserError(f"--threads {given.threads}", hint="give a whole number of at least 1")
    if given.tuned is not None and given.emit == "c":
        raise UserError("--tuned and --emit c do not go together", hint="leave one out: the C sources have no vectors")
    compiling.target(given.target)  # a wrong name is told before tvm is loaded
    what = f"compiling {given.model.name} for {given.target}"
    with Console(stderr=True).status(f"{what} (the first program for a target takes a minute or two)"):
        if given.emit == "c":
            files = compiling.emit_c(given.model, given.out, target=given.target)
        else:
            artifact = compiling.compile_onnx(
                given.model, given.out, runtime="native", target=given.target, threads=given.threads, tuned=given.tuned
            )
    if given.emit == "c":
        print(f"{given.out}: {len(files)} files; build them with: make -C {given.out} CC=COMPILER")
    else:
        _show(artifact)
    return 0


def _show(artifact: Artifact) -> None:
    weights, arena = artifact.weights_bytes or 0, artifact.arena_bytes or 0
    size = artifact.model.stat().st_size
    print(f"{artifact.model}: {size:,} bytes, {weights:,} of them weights; {arena:,} bytes for tensors while it runs")
    for note in artifact.notes:
        print(note)
    print("run it there:  ./program facts")
    print("               ./program check --input in.bin --output out.bin")
    print("               ./program measure --samples 100 --seconds 1 --threads 1")
