"""From an ONNX file to one static program: the whole way in one page.

plan (as the runtime tvm) -> machine code and tables of calls -> link with the C runtime of `devices/native`
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tvm

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.linking import find_linker
from edgeprune.compiling.native.emit import WEIGHTS_FILE, Labels, model_source, weights_source
from edgeprune.compiling.native.plain import in_plain_c
from edgeprune.compiling.native.program import ALIGNMENT, Program, kernels, read_program
from edgeprune.compiling.processors import Target
from edgeprune.compiling.tvm.build import Planned, plan, unbuilt
from edgeprune.compiling.tvm.tile import Factor
from edgeprune.resources import devices_folder

PROGRAM = "program"
_MOST_THREADS = 64
_MAKEFILE = """\
# Set CC to a compiler for the device: make CC=aarch64-linux-gnu-gcc
CFLAGS ?= -O3 -std=gnu11 -static

{program}: {sources}
\t$(CC) $(CFLAGS) -pthread {sources} -o $@ -lm
"""
_KERNELS_BEGIN = """\
#include "tvm_types.h"
#ifdef __GNUC__ /* each kernel opens with all facts of its arguments, needed or not */
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif"""
_BORROWED = re.compile(r"TVMBackendAllocWorkspace\([^()]*T\.uint64\((\d+)\)")


def build(onnx_path: Path, folder: Path, target: Target, threads: int, tuned: Path | None = None) -> Built:
    """Compile an ONNX file into a static program.

    Args:
        onnx_path: float32 network with static shapes.
        folder: Where the program is put.
        target: What it is for.
        threads: More than 1: kernels share their work between as many threads as the program is told to use.
        tuned: Folder with what `edgeprune tune` found.

    Raises:
        CompileError: the network cannot be compiled, or there is no C compiler for the target.
    """
    linker = find_linker(target.static_triple)
    planned = plan(onnx_path, target, threads, tuned=tuned)
    try:
        workspace = _kernels(planned, planned.target, lambda code: _write_object(code, folder / "kernels.o"))
    except OSError:
        raise
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    most = _MOST_THREADS if threads > 1 else 1
    program, sources = _write_tables(onnx_path, folder, planned, target, workspace, most)
    made = [file for file in folder.iterdir() if file.is_file()]
    linker.link([*sources, "kernels.o"], folder, PROGRAM)
    for file in made:
        file.unlink()
    return Built(PROGRAM, len(program.weights), program.arena_bytes, planned.notes)


def emit(onnx_path: Path, folder: Path, target: Target) -> None:
    """Write the same program as C sources that need no other header, with a Makefile; its kernels use one thread.

    Arguments and errors are those of `build`.
    """
    planned = plan(onnx_path, target, threads=1, factor=Factor.MEMORY)  # the others are vectors from the start

    def write(code: tvm.runtime.Module) -> None:
        lines = code.inspect_source().splitlines()
        kept = [line for line in lines if not line.startswith("#include")]
        (folder / "kernels.c").write_text("\n".join([_KERNELS_BEGIN, *kept, ""]))

    try:
        with tvm.transform.PassContext(config={"tirx.disable_vectorize": True}):
            plain = replace(planned, module=in_plain_c(planned.module))
            workspace = _kernels(plain, tvm.target.Target({"kind": "c"}), write)
    except OSError:
        raise
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    _, sources = _write_tables(onnx_path, folder, planned, replace(target, features=()), workspace, 1)
    (folder / "Makefile").write_text(_MAKEFILE.format(sources=" ".join([*sources, "kernels.c"]), program=PROGRAM))


def _write_tables(
    onnx_path: Path, folder: Path, planned: Planned, target: Target, workspace: int, max_threads: int
) -> tuple[Program, list[str]]:
    """Write everything but the kernels; gives the program and the names of its sources."""
    program = read_program(planned.module)
    labels = Labels(
        name=onnx_path.stem,
        target=target.name,
        compiler=f"edgeprune, TVM {tvm.__version__}",
        features=target.features,
        input_names=planned.inputs,
        output_names=planned.outputs,
        max_threads=max_threads,
        workspace_bytes=workspace,
    )
    (folder / "model.c").write_text(model_source(program, labels))
    sources = ["model.c", *_runtime(folder)]
    if program.weights:
        (folder / WEIGHTS_FILE).write_bytes(program.weights)
        (folder / "weights.S").write_text(weights_source())
        sources.append("weights.S")
    return program, sources


def _kernels(planned: Planned, target: tvm.target.Target, write: Callable[[tvm.runtime.Module], None]) -> int:
    """Make the kernels' code and hand it to `write`; returns the most bytes that one kernel borrows while it runs."""
    borrowed = [0]

    @tvm.instrument.pass_instrument
    class Watch:
        def run_after_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            if info.name == "tirx.LowerTVMBuiltin":
                borrowed.extend(map(_borrows, module.functions.values()))

    # kernels are called on tensors that `read_program` laid out, so the checks of their arguments are 50 KB of nothing
    config = {**tvm.transform.PassContext.current().config, "tirx.disable_assert": True}
    with tvm.transform.PassContext(config=config, instruments=[Watch()]):
        write(tvm.tirx.build(kernels(planned.module), target))
    return max(borrowed)


def _write_object(code: tvm.runtime.Module, path: Path) -> None:
    """Write machine code so that a full disk is an OSError; LLVM itself would end the whole process."""
    if not (hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()):
        code.write_to_file(str(path), "o")
        return
    with open(os.memfd_create(path.name), "rb") as memory:
        code.write_to_file(f"/proc/self/fd/{memory.fileno()}", "o")
        path.write_bytes(memory.read())


def _borrows(kernel: tvm.tirx.PrimFunc) -> int:
    sizes = (int(size) for size in _BORROWED.findall(kernel.script()))
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _runtime(folder: Path) -> list[str]:
    """Copy the C runtime beside the model; returns the names of its sources."""
    for file in sorted((devices_folder() / "native").glob("*.[ch]")):
        shutil.copyfile(file, folder / file.name)
    return sorted(file.name for file in (devices_folder() / "native").glob("*.c"))
