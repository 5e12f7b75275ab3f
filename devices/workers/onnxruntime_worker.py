"""ONNX Runtime on a device's processor: the ONNX file, all graph optimisations, as many threads as asked."""

from __future__ import annotations

import os
import sys

import numpy as np
import worker_loop

# It would keep an identifier and a database in the user's cache, and send what it ran while it is measured.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime  # after that: it is read once, as ONNX Runtime starts


class OnnxRuntime:
    """A session with its inputs and outputs bound once, so that a call copies nothing."""

    def __init__(self, model: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._values: list[onnxruntime.OrtValue] = []

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in inputs]
        for argument, value in zip(self._session.get_inputs(), self._values, strict=True):
            self._binding.bind_ortvalue_input(argument.name, value)
        for result in self._session.get_outputs():
            self._binding.bind_output(result.name, "cpu")

    def call(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[worker_loop.Array]:
        return list(self._binding.copy_outputs_to_cpu())

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__}


if __name__ == "__main__":
    sys.exit(worker_loop.main(OnnxRuntime))
