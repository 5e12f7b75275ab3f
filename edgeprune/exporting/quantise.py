"""From a float32 ONNX file to an int8 one. Start with `quantise`.

ONNX Runtime's static quantisation in its QDQ form: weights per output channel and symmetric, activations per tensor
with a zero point, ranges from the least and the largest value that calibration images give. What moves values without
changing them (padding with 0, choosing channels, pooling by maximum) keeps the scale of its input.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ExportError
from edgeprune.exporting.quiet import quiet

if TYPE_CHECKING:
    import onnx

QUANTISED_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean",
    "Concat", "Pad", "Gather", "Slice", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
)  # fmt: skip
"""What is computed in int8; all else stays in float32 between a dequantisation and a quantisation."""


def quantise(onnx_path: Path, images: npt.NDArray[np.float32], path: Path) -> Path:
    """Write the int8 form of a network; equal files and images give equal bytes.

    Args:
        onnx_path: float32 network with one input of static shape [batch, C, H, W].
        images: float32 [count, C, H, W], standardised as the network wants them: they decide the ranges.
        path: Where; its folder exists.

    Returns:
        The path.

    Raises:
        ExportError: the network has several inputs, is int8 already, or ONNX Runtime cannot quantise it; or there are
            too few images for one batch, or images of another shape.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, at import
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    try:
        model = onnx.load(str(onnx_path))
        reader = _Images(_input(model, onnx_path), images, onnx_path)
        with quiet(), _root_log_silent():
            quantize_static(
                model, str(path), reader, quant_format=QuantFormat.QDQ, per_channel=True,
                op_types_to_quantize=list(QUANTISED_OPERATORS), activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8, extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )  # fmt: skip
        onnx.checker.check_model(onnx.load(str(path)))
    except ExportError:
        raise
    except Exception as error:  # its classes and onnx's share no root but this
        raise ExportError(
            f"{onnx_path} cannot be quantised to int8: {error}",
            hint="static shapes and float32 weights inside the file are needed: export it with edgeprune",
            detail=str(error),
        ) from error
    return path


class _Images:
    """Batches of calibration images, one at a time, as ONNX Runtime asks for them."""

    def __init__(self, wanted: onnx.ValueInfoProto, images: npt.NDArray[np.float32], path: Path) -> None:
        batch, *shape = [axis.dim_value for axis in wanted.type.tensor_type.shape.dim]
        if list(images.shape[1:]) != shape or not 1 <= batch <= len(images):
            raise ExportError(
                f"{path} takes images of {shape}, {batch} at a time; {images.shape[0]} of {list(images.shape[1:])}"
                " are there to calibrate with",
                hint="give images of the network's own shape, at least one batch of them",
            )
        count = len(images) // batch * batch
        self._batches: Iterator[npt.NDArray[np.float32]] = iter(images[:count].reshape(-1, batch, *shape))
        self._name = wanted.name

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the input's name; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """The network's only input.

    Raises:
        ExportError: there are several, or the network is quantised already.
    """
    if len(model.graph.input) != 1:
        raise ExportError(f"{path} has {len(model.graph.input)} inputs", hint="a network with one image as input")
    wanted: onnx.ValueInfoProto = model.graph.input[0]
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ExportError(f"{path} is quantised already", hint="give its float32 form, or compile it as it is")
    return wanted


@contextmanager
def _root_log_silent() -> Iterator[None]:
    """ONNX Runtime's quantiser advises in the root log on what the exporter has done before."""
    root = logging.getLogger()
    before = root.disabled
    root.disabled = True
    try:
        yield
    finally:
        root.disabled = before
