"""The runtime `onnxruntime`: the device gets the ONNX file itself; ONNX Runtime optimises it when it loads."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.processors import Target
from edgeprune.errors import CompileError


def build(onnx_path: Path, folder: Path, target: Target, threads: int) -> Built:
    """Copy the ONNX file after checking it.

    Raises:
        CompileError: the file is no valid ONNX, or its weights lie in another file.
    """
    import onnx

    del target, threads  # ONNX Runtime decides about both when it loads the file
    try:
        model = onnx.load(str(onnx_path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise CompileError(f"{onnx_path} is no valid ONNX file", hint="export it again", detail=str(error)) from error
    outside = [tensor.name for tensor in model.graph.initializer if tensor.external_data]
    if outside:
        raise CompileError(
            f"{onnx_path}: the weight {outside[0]!r} lies in another file",
            hint="export with the weights inside (external_data=False)",
        )
    shutil.copyfile(onnx_path, folder / "model.onnx")
    return Built("model.onnx", weights_bytes=sum(_bytes(tensor) for tensor in model.graph.initializer))


def _bytes(tensor: object) -> int:
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)  # type: ignore[attr-defined]
    return math.prod(tensor.dims) * int(kind.itemsize)  # type: ignore[attr-defined]
