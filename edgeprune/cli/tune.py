"""`edgeprune tune MODEL.onnx --target rpi4 --device 127.0.0.1:9090`: faster loops, found by trying them.

What is found is kept in a folder, for `edgeprune compile --tuned` here and on every machine it is copied to.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.compiling.tvm.tuned import Found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL.onnx", type=Path, help="a float32 network with static shapes")
    parser.add_argument(
        "--target", metavar="NAME", default="host", help="a name of `edgeprune targets`, or a file of your own (.yaml)"
    )
    parser.add_argument(
        "--device", metavar="WHERE", default="local",
        help="local (default), or HOST:PORT on this machine's loopback where the device's TVM RPC server is reached, "
        "as through ssh -L 9090:127.0.0.1:9090 DEVICE",
    )  # fmt: skip
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads the network will run on (1)")
    parser.add_argument(
        "--trials", metavar="N", type=int, default=64, help="orders of loops to try for a kernel at most (64)"
    )
    parser.add_argument(
        "--database", metavar="DIR", type=Path, default=Path("tuned"), help="folder for what is found (tuned)"
    )


def carry_out(given: argparse.Namespace) -> int:
    """Tune, and print each kernel as soon as it is kept."""
    from edgeprune import compiling

    for name in ("threads", "trials"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)}", hint="give a whole number of at least 1")
    where = compiling.target(given.target)  # a wrong name is told before tvm is loaded
    if not given.model.is_file():
        raise UserError(f"there is no file {given.model}", hint="export the network first")
    if given.device == "local" and where.name != compiling.HOST:
        raise UserError(f"this machine is no {where.name}", hint="give --device HOST:PORT of one, or --target host")
    print("kernel, latency without tuning, in the best form that was tried:")
    from edgeprune.compiling.tvm.tuning import tune

    tuned = tune(
        given.model, where, given.threads, given.database, device=given.device, trials=given.trials, told=_show
    )
    faster = sum(record.is_faster for record in tuned.found.values())
    print(f"{tuned.path}: {len(tuned.found)} kernels known, {faster} of them faster than without tuning")
    print(f"use it:  edgeprune compile {given.model} --target {given.target} --threads {given.threads} "
          f"--tuned {given.database} -o DIR")  # fmt: skip
    return 0


def _show(record: Found) -> None:
    gain = f"{record.untuned_ns / record.tuned_ns:.2f} times as fast{'' if record.is_faster else ', not used'}"
    print(f"  {record.name}  {record.untuned_ns / 1e3:.1f} us  {record.tuned_ns / 1e3:.1f} us  {gain}", flush=True)
