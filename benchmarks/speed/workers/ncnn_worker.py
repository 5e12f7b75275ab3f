"""ncnn on this processor: what pnnx made of the ONNX file, in float32 throughout. Images are [1, C, H, W]."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import own_stdout
import worker_loop

own_stdout.claim()
import ncnn  # noqa: E402  its stdout is another by then


class Ncnn:
    """A network; a call makes an extractor, as ncnn's users do."""

    def __init__(self, model: str, threads: int) -> None:
        self._net, options = ncnn.Net(), ncnn.Option()
        options.num_threads = threads
        for saving in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{saving}", False)
        self._net.opt = options
        weights = Path(model).with_suffix(".bin")
        if self._net.load_param(model) or self._net.load_model(str(weights)):
            raise RuntimeError(f"ncnn cannot load {model}")
        self._inputs: list[ncnn.Mat] = []
        self._last: list[ncnn.Mat] = []

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        self._inputs = [ncnn.Mat(np.ascontiguousarray(array[0])).clone() for array in inputs]

    def call(self) -> None:
        extractor = self._net.create_extractor()
        for name, value in zip(self._net.input_names(), self._inputs, strict=True):
            extractor.input(name, value)
        self._last = []
        for name in self._net.output_names():
            status, value = extractor.extract(name)
            if status:
                raise RuntimeError(f"ncnn cannot compute {name}: status {status}")
            self._last.append(value)

    def outputs(self) -> list[worker_loop.Array]:
        return [np.array(value)[None] for value in self._last]

    def versions(self) -> dict[str, str]:
        return {"ncnn": ncnn.__version__}


if __name__ == "__main__":
    sys.exit(worker_loop.main(Ncnn))
