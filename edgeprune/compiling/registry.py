"""The runtimes by name. A new one is one file with a `build` function and one line of `_RUNTIMES`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeprune.compiling.artifact import Built
from edgeprune.errors import UnknownNameError

Build = Callable[..., Built]


@dataclass(frozen=True)
class Runtime:
    """How a runtime's files are made.

    Attributes:
        module: Module whose `build(source, folder, target, threads)` makes them; loaded when it is used.
        distributions: Python packages whose versions the files depend on.
        takes_module: The source is a PyTorch module with example inputs instead of an ONNX file.
        takes_tuned: `build` takes what `edgeprune tune` found, as `tuned`.
        is_program: The model that it makes is a program that needs no worker (`devices/native/`).
        is_accelerator: The source is an int8 ONNX file, the target a core (`compiling.fpga.core_of`).
    """

    module: str
    distributions: tuple[str, ...]
    takes_module: bool = False
    takes_tuned: bool = False
    is_program: bool = False
    is_accelerator: bool = False

    def build(self) -> Build:
        """The function that makes the files."""
        function: Any = importlib.import_module(self.module).build
        return function  # type: ignore[no-any-return]


_RUNTIMES = {
    "fpga": Runtime("edgeprune.compiling.fpga.build", ("onnx", "onnxruntime"), is_accelerator=True),
    "native": Runtime(
        "edgeprune.compiling.native.build",
        ("apache-tvm", "apache-tvm-ffi", "onnx", "ziglang"),
        takes_tuned=True,
        is_program=True,
    ),
    "onnxruntime": Runtime("edgeprune.compiling.onnxruntime", ("onnxruntime", "onnx")),
    "torch": Runtime("edgeprune.compiling.torch", ("torch",), takes_module=True),
    "tvm": Runtime("edgeprune.compiling.tvm.build", ("apache-tvm", "apache-tvm-ffi", "onnx"), takes_tuned=True),
}


def runtimes() -> list[str]:
    """The names of all runtimes."""
    return sorted(_RUNTIMES)


def runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in _RUNTIMES:
        raise UnknownNameError("runtime", name, _RUNTIMES)
    return _RUNTIMES[name]


def takes_module(name: str) -> bool:
    """Whether a runtime is compiled by `compile_module`, from a PyTorch module, instead of `compile_onnx`.

    Raises:
        UnknownNameError: there is no such runtime.
    """
    return runtime(name).takes_module


def is_program(name: str) -> bool:
    """Whether what a runtime's compiler makes is a program that runs and measures itself.

    Raises:
        UnknownNameError: there is no such runtime.
    """
    return runtime(name).is_program


def is_accelerator(name: str) -> bool:
    """Whether a runtime's compiler takes an int8 network and makes what an accelerator runs.

    Raises:
        UnknownNameError: there is no such runtime.
    """
    return runtime(name).is_accelerator


def distributions(name: str) -> tuple[str, ...]:
    """The Python packages whose versions a runtime's files depend on.

    Raises:
        UnknownNameError: there is no such runtime.
    """
    return runtime(name).distributions
