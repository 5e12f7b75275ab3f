"""ONNX files, the gate that their numbers equal the network's, their int8 form. Start with `export_onnx`.

Importing this package loads neither torch nor a runtime until a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune.exporting.parity import PARITY_TOLERANCE, check_parity, parity
from edgeprune.exporting.quantise import quantise
from edgeprune.exporting.quiet import quiet

if TYPE_CHECKING:
    from edgeprune.exporting.onnx_file import export_onnx

__all__ = ["PARITY_TOLERANCE", "check_parity", "export_onnx", "parity", "quantise", "quiet"]


def __getattr__(name: str) -> Any:
    if name == "export_onnx":
        return importlib.import_module("edgeprune.exporting.onnx_file").export_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
