"""The runtimes of compile.md: what each makes of an ONNX file, and the process that holds it. Start with `RUNTIMES`.

ONNX Runtime and edgeprune's own runtimes are those of a matrix; OpenVINO, ncnn and MNN have workers in `workers/` and
come by `pip install 'edgeprune[bench]'`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from edgeprune import compiling
from edgeprune.compiling import compile_onnx, load_artifact
from edgeprune.errors import CompileError, EdgepruneError
from edgeprune.matrix.cache import Cache, fingerprint, versions
from edgeprune.resources import devices_folder
from edgeprune.transport import Transport, Worker

OURS = ("native", "tvm")
PEERS = ("onnxruntime", "openvino", "ncnn", "mnn")
RUNTIMES = (*PEERS, *OURS)
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn", "mnn": "MNN"}
_WORKERS = Path(__file__).parent / "workers"
_MODULES = {"openvino": "openvino", "ncnn": "ncnn", "mnn": "MNN"}
_DISTRIBUTIONS = {"openvino": ("openvino",), "ncnn": ("ncnn", "pnnx"), "mnn": ("mnn",)}


def missing(runtimes: Sequence[str]) -> list[str]:
    """Those of the runtimes that are not installed here."""
    return [name for name in runtimes if name in _MODULES and importlib.util.find_spec(_MODULES[name]) is None]


def prepared(
    cache: Cache, onnx_path: Path, shape: Sequence[int], runtimes: Sequence[str], threads: int
) -> dict[str, tuple[Path, ...] | EdgepruneError]:
    """The files of each runtime, or why there are none; made by as many processes as there are cores.

    Args:
        cache: Where they are kept.
        onnx_path: The network.
        shape: Of its input.
        runtimes: Of `RUNTIMES`.
        threads: That it is compiled for.

    Returns:
        By runtime: the file that it loads, then those that must lie beside it.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
        asked = {name: pool.submit(_files, cache.root, onnx_path, tuple(shape), name, threads) for name in runtimes}
        made: dict[str, tuple[Path, ...] | EdgepruneError] = {}
        for name, future in asked.items():
            try:
                made[name] = future.result()
            except EdgepruneError as error:
                made[name] = error
    return made


def _files(root: Path, onnx_path: Path, shape: tuple[int, ...], runtime: str, threads: int) -> tuple[Path, ...]:
    cache = Cache(root)
    if runtime in OURS:
        made = compiled(cache, onnx_path, runtime, "host", threads)
        return (made.model, *(file for file in made.files if file != made.model))
    if runtime not in _CONVERTERS:
        return (onnx_path,)
    ingredients = {"onnx": _sha256(onnx_path), "runtime": runtime, "versions": versions(*_DISTRIBUTIONS[runtime])}
    convert, names = _CONVERTERS[runtime]
    folder = cache.make("benchmark-converted", ingredients, lambda folder: convert(onnx_path, shape, folder))
    return tuple(folder / name for name in names)


def compiled(cache: Cache, onnx_path: Path, runtime: str, target: str, threads: int) -> compiling.Artifact:
    """A network compiled by edgeprune, now or earlier by the same code.

    Raises:
        CompileError: it cannot be.
    """
    ingredients = {
        "onnx": _sha256(onnx_path),
        "runtime": runtime,
        "target": compiling.target(target).ingredients(),
        "threads": threads,
        "code": code(),
        "versions": versions(*compiling.distributions(runtime)),
    }

    def build(folder: Path) -> None:
        compile_onnx(onnx_path, folder, runtime=runtime, target=target, threads=threads)

    return load_artifact(cache.make("benchmark-artifact", ingredients, build))


def code() -> str:
    """What all that edgeprune compiles depends on: rows of other code are not of today."""
    return fingerprint("compiling", "devices/native")


def start(transport: Transport, runtime: str, model: str, threads: int, cores: Sequence[int] | None) -> Worker:
    """A process on these cores that will hold the pushed model; a native program is its own."""
    if runtime == "native":
        return Worker.start(transport, runtime, cores, [model, "serve", "--threads", str(threads)])
    if runtime not in _MODULES:
        return Worker.start(transport, runtime, cores)
    loop = devices_folder() / "workers" / "worker_loop.py"
    script, *_ = transport.push([_WORKERS / f"{runtime}_worker.py", _WORKERS / "own_stdout.py", loop])
    return Worker.start(transport, runtime, cores, [*transport.python(), script])


def _to_ncnn(onnx_path: Path, shape: tuple[int, ...], folder: Path) -> None:
    shutil.copyfile(onnx_path, folder / onnx_path.name)  # pnnx writes beside what it reads
    _carry_out(["pnnx", onnx_path.name, f"inputshape={list(shape)}f32".replace(" ", ""), "fp16=0"], folder)
    _keep(folder, f"{onnx_path.stem}.ncnn", _NCNN)


def _to_mnn(onnx_path: Path, shape: tuple[int, ...], folder: Path) -> None:
    del shape  # the ONNX file tells
    words = ["--modelFile", str(onnx_path), "--MNNModel", _MNN[0], "--bizCode", "edgeprune"]
    _carry_out(["mnnconvert", "-f", "ONNX", *words], folder)
    _keep(folder, "model", _MNN)


def _carry_out(command: Sequence[str], folder: Path) -> None:
    """Run a converter that pip has put beside the interpreter."""
    program = Path(sys.executable).with_name(command[0])
    try:
        done = subprocess.run(
            [str(program), *command[1:]], cwd=folder, capture_output=True, text=True, errors="replace", timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise CompileError(f"{command[0]} ended with status {done.returncode}", detail=done.stderr[-2000:])


def _keep(folder: Path, stem: str, names: Sequence[str]) -> None:
    """Leave nothing but the files of these names."""
    for name in names:
        made = folder / f"{stem}{Path(name).suffix}"
        if not made.is_file():
            raise CompileError(f"the converter made no {made.name}")
        made.replace(folder / name)
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()


_NCNN = ("model.param", "model.bin")
_MNN = ("model.mnn",)
_CONVERTERS: dict[str, tuple[Callable[[Path, tuple[int, ...], Path], None], tuple[str, ...]]] = {
    "ncnn": (_to_ncnn, _NCNN),
    "mnn": (_to_mnn, _MNN),
}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
