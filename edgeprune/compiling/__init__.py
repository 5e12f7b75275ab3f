"""Compiling: from an ONNX file to the files a device's worker loads. Start with `compile_onnx` in `compiler.py`.

Importing this package loads neither torch nor tvm nor onnx; a runtime's compiler is loaded when it is used.
"""

from edgeprune.compiling.artifact import Artifact, load_artifact
from edgeprune.compiling.compiler import compile_module, compile_onnx, emit_c, target_ingredients
from edgeprune.compiling.processors import HOST, Target, target, targets
from edgeprune.compiling.registry import distributions, is_accelerator, is_program, runtimes, takes_module

__all__ = [
    "HOST",
    "Artifact",
    "Target",
    "compile_module",
    "compile_onnx",
    "distributions",
    "emit_c",
    "is_accelerator",
    "is_program",
    "load_artifact",
    "runtimes",
    "takes_module",
    "target",
    "target_ingredients",
    "targets",
]
