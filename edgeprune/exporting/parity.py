"""Whether two forms of one network give the same numbers. Start with `parity`, the one measure used everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ExportError, ParityError
from edgeprune.evaluation import in_evaluation_mode

if TYPE_CHECKING:
    import torch
    from torch import nn

PARITY_TOLERANCE = 1e-4
"""Largest `parity` at which two float32 forms of one network count as equal (DESIGN.md, Measuring, rule 9)."""


def parity(reference: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Largest absolute difference over the reference's largest absolute value.

    Args:
        reference: Numbers of any shape, from the form that is trusted.
        other: The same shape, from the form that is checked.

    Returns:
        0 for equal arrays and for two empty ones. Infinity if either holds NaN or infinity, or if the reference is
        all zero and the other is not: nothing then is small beside it.

    Raises:
        ParityError: The shapes differ.

    >>> parity([1.0, -2.0], [1.0, -1.5])
    0.25
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape:
        raise ParityError(
            f"outputs have shapes {list(a.shape)} and {list(b.shape)}", hint="compare outputs of the same inputs"
        )
    if a.size == 0:
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    difference, scale = float(np.abs(a - b).max()), float(np.abs(a).max())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else float("inf")


def check_parity(
    model: nn.Module,
    onnx_path: Path,
    inputs: torch.Tensor | tuple[torch.Tensor, ...],
    tolerance: float = PARITY_TOLERANCE,
) -> float:
    """Run a model and its ONNX file on the same inputs and return their parity, if it is within the tolerance.

    Args:
        model: The reference, run in evaluation mode; its mode is kept.
        onnx_path: The file, run by ONNX Runtime on one thread of the CPU.
        inputs: A tensor or a tuple of them, in the shapes of the export.
        tolerance: Largest `parity` of any output.

    Raises:
        ParityError: The numbers differ by more, or are not finite.
        ExportError: ONNX Runtime cannot read or run the file.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    expected = _run_model(model, given)
    got = _run_onnx(Path(onnx_path), [one.detach().cpu().numpy() for one in given])
    if len(expected) != len(got):
        raise ParityError(f"{onnx_path} has {len(got)} outputs, the model {len(expected)}", hint="export it again")
    worst = max((parity(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    if not worst <= tolerance:
        raise ParityError(
            f"{onnx_path} differs from {type(model).__name__} by {worst:.3g} of the largest output, "
            f"more than {tolerance:.3g}",
            hint="look for operators that the exporter translates differently, or weights that are not finite",
        )
    return worst


def _run_model(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[npt.NDArray[Any]]:
    import torch
    from torch.utils import _pytree

    with in_evaluation_mode(model), torch.no_grad():
        result = model(*inputs)
    # the exporter takes outputs out of dicts and tuples in this order, too
    return [one.detach().cpu().numpy() for one in _pytree.tree_leaves(result)]


def _run_onnx(path: Path, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would tell its makers what was run; read once, at import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        outputs: list[npt.NDArray[Any]] = session.run(None, dict(zip(names, inputs, strict=True)))
    except Exception as error:  # onnxruntime's classes share no root but this
        raise ExportError(
            f"ONNX Runtime cannot run {path}: {error}", hint="check the file, and that the inputs have its shapes"
        ) from error
    return outputs
