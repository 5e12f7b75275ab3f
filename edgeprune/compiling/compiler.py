"""The two ways in: `compile_onnx` for runtimes that take an ONNX file, `compile_module` for those that take PyTorch.

Files are made in a folder aside and moved to their place when all are there, `artifact.json` last.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.compiling import fpga
from edgeprune.compiling.artifact import Artifact, Built
from edgeprune.compiling.processors import Target
from edgeprune.compiling.processors import target as find_target
from edgeprune.compiling.registry import runtime as find_runtime
from edgeprune.errors import CompileError, StorageError, UserError
from edgeprune.storage import partial_folder

Made = TypeVar("Made")


def compile_onnx(
    onnx_path: Path,
    out: Path,
    *,
    runtime: str,
    target: str = "host",
    threads: int = 1,
    tuned: Path | None = None,
) -> Artifact:
    """Compile an ONNX file for a runtime and a target.

    Args:
        onnx_path: float32 network with static shapes; int8 (`exporting.quantise`) for an accelerator.
        out: Folder for the files; made if missing, files of an earlier compilation are replaced.
        runtime: One of `runtimes()`.
        target: One of `targets()`; a core such as `fpga-16x16` for an accelerator.
        threads: Threads the network will run on, at least 1.
        tuned: Folder with what `edgeprune tune` found for the target and so many threads.

    Raises:
        UnknownNameError: no such runtime or target.
        UserError: the runtime cannot use what was tuned, or nothing was for the target.
        CompileError: the compiler refused the network; the message names the operator and its node.
        StorageError: the files cannot be written.

    Example:
        >>> compile_onnx(Path("lenet5.onnx"), Path("compiled"), runtime="tvm").model  # doctest: +SKIP
        PosixPath('compiled/model.so')
    """
    entry = find_runtime(runtime)
    where = fpga.core_of(target) if entry.is_accelerator else find_target(target)
    if entry.takes_module:
        raise UserError(f"the runtime {runtime} takes a PyTorch module, not an ONNX file", hint="use compile_module")
    if not onnx_path.is_file():
        raise CompileError(f"there is no file {onnx_path}", hint="export the network first")
    _check_threads(threads)
    if tuned is not None and not entry.takes_tuned:
        raise UserError(f"the runtime {runtime} has nothing to tune", hint="use the runtime native or tvm")
    build = entry.build()
    options = {"tuned": tuned} if tuned is not None else {}
    return _publish(out, runtime, target, threads, lambda folder: build(onnx_path, folder, where, threads, **options))


def target_ingredients(runtime: str, target: str) -> Any:
    """Everything of a target that decides what is compiled for it.

    Raises:
        UnknownNameError: no such runtime or target.
    """
    if find_runtime(runtime).is_accelerator:
        return asdict(fpga.core_of(target))
    return find_target(target).ingredients()


def emit_c(onnx_path: Path, out: Path, *, target: str = "host") -> tuple[Path, ...]:
    """Write a network as self-contained C sources, for a tool-chain that edgeprune does not know.

    Args:
        onnx_path: float32 network with static shapes.
        out: Folder for the sources; made if missing.
        target: One of `targets()`, whose vectors and registers the loops are cut for.

    Returns:
        The files: C sources and headers, the weights, and a Makefile that builds the program of `devices/native`.

    Raises:
        UnknownNameError: no such target.
        CompileError: the compiler refused the network.
        StorageError: the files cannot be written.
    """
    where = find_target(target)
    if not onnx_path.is_file():
        raise CompileError(f"there is no file {onnx_path}", hint="export the network first")
    emit: Callable[[Path, Path, Target], None] = importlib.import_module("edgeprune.compiling.native.build").emit
    return _fill(out, lambda folder: emit(onnx_path, folder, where))[1]


def compile_module(
    model: Any, example_inputs: Any, out: Path, *, runtime: str = "torch", target: str = "host", threads: int = 1
) -> Artifact:
    """Save a PyTorch module for a runtime that runs PyTorch's own form.

    Args:
        model: torch.nn.Module in eval mode.
        example_inputs: A tensor or a tuple of tensors that fixes the shapes.
        out: Folder for the files.
        runtime: One of `runtimes()` that takes a module.
        target: One of `targets()`.
        threads: Threads the network will run on, at least 1.

    Raises:
        UnknownNameError: no such runtime or target.
        CompileError: the module cannot be exported.
        StorageError: the files cannot be written.
    """
    entry, where = find_runtime(runtime), find_target(target)
    if not entry.takes_module:
        raise UserError(f"the runtime {runtime} takes an ONNX file, not a PyTorch module", hint="use compile_onnx")
    _check_threads(threads)
    source = (model, example_inputs if isinstance(example_inputs, tuple) else (example_inputs,))
    build = entry.build()
    return _publish(out, runtime, target, threads, lambda folder: build(source, folder, where, threads))


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UserError(f"threads is {threads}", hint="give a whole number of at least 1")


def _publish(out: Path, runtime: str, target: str, threads: int, build: Callable[[Path], Built]) -> Artifact:
    built, files = _fill(out, build)
    facts = (built.weights_bytes, built.arena_bytes, built.notes)
    artifact = Artifact(runtime, target, threads, out / built.model, files, *facts)
    artifact.to_json()
    return artifact


def _fill(out: Path, build: Callable[[Path], Made]) -> tuple[Made, tuple[Path, ...]]:
    """Build aside, then move every file to `out`; gives what `build` gave, and the files."""
    fresh = not out.exists()
    try:
        with partial_folder(out) as aside:
            made = build(aside)
            names = sorted(file.relative_to(aside) for file in aside.rglob("*") if file.is_file())
            for name in names:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(aside / name, out / name)
        fresh = False
    except OSError as error:
        raise StorageError(
            f"cannot write the compiled network to {out}: {error.strerror or error}",
            hint="free space or choose another folder; nothing was left half-written",
        ) from error
    finally:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
    return made, tuple(out / name for name in names)
