"""MNN on this processor: what its converter made of the ONNX file, at its highest precision, float32."""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np
import own_stdout
import worker_loop

own_stdout.claim()
import MNN  # noqa: E402  its stdout is another by then


class Mnn:
    """A session; a call copies the inputs into it first, since it uses their memory for other things."""

    def __init__(self, model: str, threads: int) -> None:
        self._interpreter = MNN.Interpreter(model)
        settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
        self._session = self._interpreter.createSession(settings)
        self._held = list(self._interpreter.getSessionInputAll(self._session).values())
        self._inputs: list[MNN.Tensor] = []

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        self._inputs = [_wrapped(array.shape, np.ascontiguousarray(array)) for array in inputs]

    def call(self) -> None:
        for held, given in zip(self._held, self._inputs, strict=True):
            held.copyFrom(given)
        self._interpreter.runSession(self._session)

    def outputs(self) -> list[worker_loop.Array]:
        results = []
        for tensor in self._interpreter.getSessionOutputAll(self._session).values():
            array = np.empty(tensor.getShape(), np.float32)
            host = _wrapped(array.shape, array)
            tensor.copyToHostTensor(host)
            results.append(np.array(host.getNumpyData()).reshape(array.shape))
        return results

    def versions(self) -> dict[str, str]:
        return {"mnn": importlib.metadata.version("mnn")}


def _wrapped(shape: tuple[int, ...], array: worker_loop.Array) -> MNN.Tensor:
    """A tensor in C order."""
    return MNN.Tensor(shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)


if __name__ == "__main__":
    sys.exit(worker_loop.main(Mnn))
