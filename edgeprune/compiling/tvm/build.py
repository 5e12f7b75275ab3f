"""From an ONNX file to a shared library that TVM's runtime alone can run: the whole way in one page.

read_graph -> rewrite -> lower -> fuse -> schedule -> plan memory -> machine code -> library
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.linking import Linker, find_host_linker, find_linker
from edgeprune.compiling.processors import HOST, Target
from edgeprune.compiling.tvm.form import Form
from edgeprune.compiling.tvm.form import forms as possible_forms
from edgeprune.compiling.tvm.graph import read_graph
from edgeprune.compiling.tvm.lower import lower
from edgeprune.compiling.tvm.ops import RULES
from edgeprune.compiling.tvm.rewrite import rewrite
from edgeprune.compiling.tvm.schedule import schedule_module
from edgeprune.compiling.tvm.tile import Factor
from edgeprune.compiling.tvm.tuned import Tuned
from edgeprune.compiling.tvm.winograd_choice import Machine
from edgeprune.errors import CompileError, UserError


def build(onnx_path: Path, folder: Path, target: Target, threads: int, tuned: Path | None = None) -> Built:
    """Compile an ONNX file into `model.so`.

    Args:
        onnx_path: float32 network with static shapes.
        folder: Where the library is put.
        target: What the code is for.
        threads: More than 1: outer loops are shared between threads.
        tuned: Folder with what `edgeprune tune` found.

    Raises:
        CompileError: the network cannot be compiled, or there is no C compiler to link with.
        UserError: no library can be made for the target's system.
    """
    linker = library_linker(target)
    planned = plan(onnx_path, target, threads, tuned=tuned)
    try:
        with planned.target:
            built = Built("model.so", _weights_bytes(planned.module), _arena_bytes(planned.module), planned.notes)
            executable = relax.build(planned.module, planned.target, relax_pipeline=_FINISH)
        executable.export_library(str(folder / built.model), fcompile=linker.link_library)
    except (CompileError, OSError):
        raise
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    return built


@dataclass(frozen=True)
class Planned:
    """A network as scheduled kernels, and one function that calls them on planned storage.

    Attributes:
        module: `main` and its kernels.
        target: What the kernels are for, as TVM takes it.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        notes: Sentences for the report.
    """

    module: tvm.IRModule
    target: tvm.target.Target
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()


def plan(
    onnx_path: Path, target: Target, threads: int, factor: Factor | None = None, tuned: Path | None = None
) -> Planned:
    """All of the way that comes before machine code; arguments as for `build`.

    Args:
        onnx_path: float32 network with static shapes.
        target: What the code is for.
        threads: More than 1: outer loops are shared between threads.
        factor: How vectors are multiplied; None: as the target wants it.
        tuned: Folder with what `edgeprune tune` found; kernels that it made faster are taken from there.

    Raises:
        CompileError: the network cannot be compiled.
        UserError: nothing was tuned for the target and so many threads, or the records are damaged.
    """
    fused = fuse(onnx_path, target, threads, factor)
    forms, notes = _tuned(fused, target, tuned) if tuned is not None else ({}, ())
    try:
        with fused.target:
            module = _plan(fused.schedule(fused.module, forms))
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    return Planned(module, fused.target, fused.inputs, fused.outputs, notes)


@dataclass(frozen=True)
class Fused:
    """A network as fused kernels that are not yet scheduled.

    Attributes:
        module: `main` and its kernels.
        target: What the kernels are for, as TVM takes it.
        lanes: float32 lanes of the target's vector.
        factor: How vectors are multiplied.
        threads: Threads the network will run on.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """

    module: tvm.IRModule
    target: tvm.target.Target
    lanes: int
    factor: Factor
    threads: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def schedule(self, module: tvm.IRModule, forms: Mapping[str, Form]) -> tvm.IRModule:
        """The kernels of a module, all or some of this one's, in the forms that tuning chose for some by name."""
        return schedule_module(module, self.lanes, self.factor, parallel=self.threads > 1, forms=forms)


def fuse(onnx_path: Path, target: Target, threads: int, factor: Factor | None = None) -> Fused:
    """All of the way that comes before scheduling; arguments as for `plan`.

    Raises:
        CompileError: the network cannot be compiled.
    """
    lanes = target.vector_bits // 32
    graph = rewrite(read_graph(onnx_path), lanes)
    factor = factor or Factor.of(target.architecture)
    machine = Machine(lanes, target.vector_registers, target.l2_bytes, threads)
    module = lower(graph, RULES, machine, factor)
    tvm_target = tvm.target.Target(target.tvm)
    try:
        with tvm_target:
            module = _fuse(module)
    except Exception as error:  # TVM raises errors of any kind
        raise unbuilt(onnx_path, target, error) from error
    return Fused(module, tvm_target, lanes, factor, threads, tuple(graph.inputs), tuple(graph.outputs))


def _tuned(fused: Fused, target: Target, folder: Path) -> tuple[dict[str, Form], tuple[str, ...]]:
    """What tuning chose for a network's kernels by their names, and a sentence that says so."""
    tuned = Tuned.load(folder, target, fused.threads)
    if not tuned.found:
        raise UserError(
            f"{folder} holds nothing for target {target.name} and {fused.threads} threads",
            hint="tune for both, or compile for as many --threads as were tuned for",
        )
    chosen = tuned.faster(fused.module)
    for name, kernel in fused.module.functions_items():
        form = chosen.get(str(name.name_hint))
        if form is not None and form not in possible_forms(kernel, fused.factor, target.vector_registers):
            raise UserError(f"{tuned.path} does not fit {name.name_hint}", hint="remove the file and tune again")
    return chosen, (tuned.told(chosen),)


def unbuilt(onnx_path: Path, target: Target, error: Exception) -> CompileError:
    """What to tell the user when TVM or a linker failed."""
    return CompileError(
        f"tvm could not build {onnx_path.name} for target {target.name}: {type(error).__name__}",
        hint="use the runtime onnxruntime for this network, and report the network with the detail below",
        detail=str(error),
    )


def library_linker(target: Target) -> Linker:
    """The C compiler that links a target's libraries: this machine's own for itself, else a cross compiler.

    Raises:
        CompileError: there is none.
        UserError: the target's system has no library of this kind.
    """
    return find_host_linker() if target.name == HOST else find_linker(target.shared_triple)


def _fuse(module: tvm.IRModule) -> tvm.IRModule:
    passes = relax.transform
    steps = [
        passes.LegalizeOps(),
        passes.AnnotateTIROpPattern(),
        passes.DeadCodeElimination(),
        passes.FuseOps(),
        passes.FuseTIR(),
        passes.DeadCodeElimination(),
    ]
    return tvm.transform.Sequential(steps)(module)


def _plan(module: tvm.IRModule) -> tvm.IRModule:
    passes = relax.transform
    steps = [
        passes.RewriteDataflowReshape(),
        passes.ToNonDataflow(),
        passes.RemovePurityChecking(),
        passes.CallTIRRewrite(),
        passes.StaticPlanBlockMemory(),
    ]
    return tvm.transform.Sequential(steps)(module)


_FINISH = tvm.transform.Sequential(
    [
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
)


def _weights_bytes(module: tvm.IRModule) -> int:
    """Bytes of the constants of `main`, each counted once."""
    sizes = {}

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, tvm.ir.GenericConst) and isinstance(expression.value, tvm.runtime.Tensor):
            sizes[expression] = expression.value.numpy().nbytes

    relax.analysis.post_order_visit(module["main"], visit)
    return sum(sizes.values())


def _arena_bytes(module: tvm.IRModule) -> int:
    """Bytes of the storage planned for the tensors between kernels; borders inside kernels are not in it."""
    sizes = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, relax.Call) and getattr(expression.op, "name", "") == "relax.memory.alloc_storage":
            sizes.append(int(expression.args[0].values[0]))

    relax.analysis.post_order_visit(module["main"], visit)
    return sum(sizes)
