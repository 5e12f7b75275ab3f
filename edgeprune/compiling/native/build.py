"""From an ONNX file to one static program: the whole way in one page.

plan (as the runtime tvm) -> machine code and tables of calls -> link with the C runtime of `devices/native`
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import tvm

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.native.emit import WEIGHTS_FILE, Labels, model_source, weights_source
from edgeprune.compiling.native.link import find_linker
from edgeprune.compiling.native.program import ALIGNMENT, kernels, read_program
from edgeprune.compiling.processors import Target
from edgeprune.compiling.tvm.build import Planned, plan, unbuilt
from edgeprune.resources import devices_folder

PROGRAM = "program"
_MOST_THREADS = 64
_BORROWED = re.compile(r"TVMBackendAllocWorkspace\([^()]*T\.uint64\((\d+)\)")


def build(onnx_path: Path, folder: Path, target: Target, threads: int) -> Built:
    """Compile an ONNX file into a static program.

    Args:
        onnx_path: float32 network with static shapes.
        folder: Where the program is put.
        target: What it is for.
        threads: More than 1: kernels share their work between as many threads as the program is told to use.

    Raises:
        CompileError: the network cannot be compiled, or there is no C compiler for the target.
    """
    linker = find_linker(target.static_triple)
    planned = plan(onnx_path, target, threads)
    program = read_program(planned.module)
    try:
        workspace = _write_objects(planned, folder / "kernels.o")
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    labels = Labels(
        name=onnx_path.stem,
        target=target.name,
        compiler=f"edgeprune, TVM {tvm.__version__}",
        features=target.features,
        input_names=planned.inputs,
        output_names=planned.outputs,
        max_threads=_MOST_THREADS if threads > 1 else 1,
        workspace_bytes=workspace,
    )
    sources = ["model.c", "kernels.o", *_runtime(folder)]
    (folder / "model.c").write_text(model_source(program, labels))
    if program.weights:
        (folder / WEIGHTS_FILE).write_bytes(program.weights)
        (folder / "weights.S").write_text(weights_source())
        sources.append("weights.S")
    made = [file for file in folder.iterdir() if file.is_file()]
    linker.link(sources, folder, PROGRAM)
    for file in made:
        file.unlink()
    return Built(PROGRAM, len(program.weights), program.arena_bytes)


def _write_objects(planned: Planned, path: Path) -> int:
    """Write the kernels' machine code, and return the most bytes that one kernel borrows while it runs."""
    borrowed = [0]

    @tvm.instrument.pass_instrument
    class Watch:
        def run_after_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            if info.name == "tirx.LowerTVMBuiltin":
                borrowed.extend(map(_borrows, module.functions.values()))

    # kernels are called on tensors that `read_program` laid out, so the checks of their arguments are 50 KB of nothing
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}, instruments=[Watch()]):
        library = tvm.tirx.build(kernels(planned.module), planned.target)
    library.write_to_file(str(path), "o")
    return max(borrowed)


def _borrows(kernel: tvm.tirx.PrimFunc) -> int:
    sizes = (int(size) for size in _BORROWED.findall(kernel.script()))
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _runtime(folder: Path) -> list[str]:
    """Copy the C runtime beside the model; returns the names of its sources."""
    for file in sorted((devices_folder() / "native").glob("*.[ch]")):
        shutil.copyfile(file, folder / file.name)
    return sorted(file.name for file in (devices_folder() / "native").glob("*.c"))
