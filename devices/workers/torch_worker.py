"""PyTorch on a device's processor: an exported program (.pt2), its operators run one by one, as eager mode does."""

from __future__ import annotations

import sys

import torch
import worker_loop


class TorchRuntime:
    """An exported program; no compiler, no fusion."""

    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._module = torch.export.load(model).module()
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._last: tuple[torch.Tensor, ...] = ()

    def bind(self, inputs: list[worker_loop.Array]) -> None:
        self._inputs = tuple(torch.from_numpy(array.copy()) for array in inputs)

    def call(self) -> None:
        result = self._module(*self._inputs)
        self._last = result if isinstance(result, tuple) else (result,)

    def outputs(self) -> list[worker_loop.Array]:
        return [tensor.numpy() for tensor in self._last]

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(worker_loop.main(TorchRuntime))
