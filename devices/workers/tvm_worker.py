"""The worker of the runtime `tvm`: a library compiled by TVM, held by TVM's runtime alone.

`import tvm` would load the compiler: 2.4-3.1 s and 404 MB here, which no deployed program takes. Only `tvm_ffi` and the
shared library of the runtime are loaded. Start with `load`.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import worker_loop

_CPU, _POOLED_ALLOCATOR = 1, 2


class _Model:
    def __init__(self, tvm_ffi: Any, path: Path) -> None:
        self._to_tvm = tvm_ffi.from_dlpack
        self._machine = tvm_ffi.load_module(str(path))["vm_load_executable"]()
        # kind, number and allocator of the device that computes, then of the host
        self._machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR, _CPU, 0, _POOLED_ALLOCATOR)
        self._main = self._machine["main"]
        self._inputs: tuple[Any, ...] = ()
        self._result: Any = None

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        self._inputs = tuple(self._to_tvm(_aligned(array)) for array in inputs)

    def call(self) -> None:
        self._result = self._main(*self._inputs)

    def outputs(self) -> list[worker_loop.Array]:
        result = self._result
        tensors = [result] if hasattr(result, "__dlpack__") else list(result)
        return [np.array(np.from_dlpack(tensor)) for tensor in tensors]

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("apache-tvm", "apache-tvm-ffi")}


def _aligned(array: worker_loop.Array) -> worker_loop.Array:
    """A copy whose first element lies on a cache line, as TVM's kernels expect of their arguments."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def load(model: str, threads: int) -> worker_loop.Runtime:
    """Load a compiled library.

    Args:
        model: Path of the library (`model.so`).
        threads: Threads of TVM's pool; it counts only for a library compiled for more than one.
    """
    os.environ["TVM_NUM_THREADS"] = str(threads)
    # Threads without work yield 300,000 times before they sleep, and take half a core from another process meanwhile:
    # MobileNetV2 in other runtimes then took up to twice as long. 10,000 still outlast the time between kernels.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "10000")
    os.environ["TVM_BIND_THREADS"] = "0"  # else the pool leaves the cores that the worker was pinned to
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # tvm_ffi would import torch: 190 MB
    found = importlib.util.find_spec("tvm")  # does not import it
    if found is None or found.origin is None:
        raise RuntimeError("TVM's runtime is not installed here: pip install apache-tvm")
    import tvm_ffi  # loads libtvm_ffi.so, which the runtime needs

    ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
    return _Model(tvm_ffi, Path(model).resolve())  # dlopen wants an absolute path


if __name__ == "__main__":
    sys.exit(worker_loop.main(load))
