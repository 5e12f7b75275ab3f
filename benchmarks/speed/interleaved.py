"""Several networks in several runtimes, compiled side by side, then timed in turn. Start with `timed_in_turn`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from tvm_vs_onnxruntime import Contender, cores

import edgeprune as ep
from edgeprune.compiling import compile_onnx, load_artifact
from edgeprune.transport import Transport, Worker

RUNTIMES = ("onnxruntime", "tvm")

Latencies = dict[tuple[str, str], list[float]]
"""For each pair of a network's name and a runtime: ms, one a round."""


def timed_in_turn(
    networks: Mapping[str, nn.Module],
    pairs: Sequence[tuple[str, str]],
    image: Tensor,
    transport: Transport,
    folder: Path,
    *,
    threads: int,
    turns: int,
) -> Latencies:
    """Time each pair of a network's name and a runtime once a round; every round has another order.

    Args:
        networks: In eval mode; a network that `folder` holds compiled under its name is not compiled again.
        pairs: What to time.
        image: float32 [N, C, H, W].
        transport: Where.
        folder: For the ONNX files and what is made of them.
        threads: Of each runtime.
        turns: Rounds.

    Raises:
        ParityError: A compiled network's output differs from its own network's.
    """
    image.numpy().tofile(folder / "image.bin")
    given = (transport.push([folder / "image.bin"])[0], image.numpy())
    models = compiled(networks, pairs, image, folder, threads)
    with contextlib.ExitStack() as stack:
        contenders = {}
        for name, runtime in pairs:
            with torch.no_grad():
                wanted = networks[name](image).numpy()
            worker = stack.enter_context(Worker.start(transport, runtime, cores(transport, threads)))
            file = transport.push([models[name, runtime]])[0]
            contenders[name, runtime] = Contender(worker, file, given, wanted, threads)
        latencies: Latencies = {pair: [] for pair in pairs}
        order = random.Random(0)
        for _ in range(turns):
            for pair in order.sample(pairs, len(pairs)):
                latencies[pair].append(contenders[pair].latency_ns() / 1e6)
    return latencies


def compiled(
    networks: Mapping[str, nn.Module], pairs: Sequence[tuple[str, str]], image: Tensor, folder: Path, threads: int
) -> dict[tuple[str, str], Path]:
    """The file of each pair, made by as many processes as there are cores: nothing is timed meanwhile."""
    for name in dict.fromkeys(name for name, _ in pairs):
        if not (folder / f"{name}.onnx").is_file():
            ep.export_onnx(networks[name], image, folder / f"{name}.onnx")
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
        files = pool.map(_compile, *zip(*[(folder, name, runtime, threads) for name, runtime in pairs], strict=True))
        return dict(zip(pairs, files, strict=True))


def _compile(folder: Path, name: str, runtime: str, threads: int) -> Path:
    out = folder / f"{name}-{runtime}"
    if out.is_dir():
        return load_artifact(out).model
    return compile_onnx(folder / f"{name}.onnx", out, runtime=runtime, threads=threads).model
