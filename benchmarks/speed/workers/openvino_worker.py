"""OpenVINO on this processor: the ONNX file itself, in float32, which it does not choose of its own accord."""

from __future__ import annotations

import sys

import numpy as np
import own_stdout
import worker_loop

own_stdout.claim()
import openvino  # noqa: E402  its stdout is another by then


class OpenVino:
    """A compiled model and one request with its inputs bound."""

    def __init__(self, model: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the agent has pinned the process
        }
        core = openvino.Core()
        self._request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        for place, array in enumerate(inputs):
            self._request.set_input_tensor(place, openvino.Tensor(np.ascontiguousarray(array)))

    def call(self) -> None:
        self._request.infer(share_outputs=True)

    def outputs(self) -> list[worker_loop.Array]:
        return [np.array(tensor.data) for tensor in self._request.output_tensors]

    def versions(self) -> dict[str, str]:
        return {"openvino": openvino.__version__}


if __name__ == "__main__":
    sys.exit(worker_loop.main(OpenVino))
