"""From a torch module to an ONNX file. Start with `export_onnx`.

Files are named by the hash of their content in the cache, so the same network must give the same bytes, in every
process and on every machine. The exporter writes stack traces, file paths and running numbers into the file:
`_normalise` takes them out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from edgeprune.errors import ExportError
from edgeprune.evaluation import in_evaluation_mode
from edgeprune.exporting.quiet import quiet
from edgeprune.storage import write_whole

# not the newest: one that ONNX Runtime (since 1.17) and TVM 0.27 both read, and that has all operators needed so far
OPSET = 20


def export_onnx(model: nn.Module, example_inputs: torch.Tensor | tuple[torch.Tensor, ...], path: Path) -> Path:
    """Write a model as one ONNX file: opset 20, static shapes, weights inside, batch-norm folded where it can be.

    Inputs are called `input` (or `input_0`, `input_1` ...), outputs `output` likewise. The same weights, shapes and
    versions give the same bytes; the file holds no path of the machine. Export and file are not compared here:
    `check_parity` does.

    Args:
        model: Exported in evaluation mode; its own mode is kept.
        example_inputs: A tensor or a tuple of them, such as float32 [1, C, H, W]; their shapes are the file's.
        path: Where; folders on the way are made, the file appears whole.

    Returns:
        The path.

    Raises:
        ExportError: The model cannot be exported, or what came out is not a valid ONNX model.
        StorageError: The file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), Path(folder) / "a.onnx")
    ...     [node.op_type for node in onnx.load(path).graph.node]
    ['Gemm']
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    what = type(model).__name__
    try:
        with in_evaluation_mode(model), quiet(), torch.no_grad():
            program = torch.onnx.export(
                model, inputs, dynamo=True, external_data=False, opset_version=OPSET, verbose=False
            )
        if program is None:
            raise ExportError(f"{what} cannot be exported to ONNX: the exporter gave nothing", hint="see --debug")
        proto = program.model_proto
        _normalise(proto)
        onnx.checker.check_model(proto, full_check=True)
    except ExportError:
        raise
    except Exception as error:  # torch.export, the exporter and the checker share no root but this
        raise ExportError(
            f"{what} cannot be exported to ONNX: {_root_cause(error)}",
            hint="an operator without an ONNX form, or control flow on tensor values: replace it in the model",
            detail=str(error),
        ) from error
    return write_whole(Path(path), proto.SerializeToString(deterministic=True))


def _normalise(proto: onnx.ModelProto) -> None:
    """Take out what does not belong to the network, and name nodes, inputs and outputs by their place."""
    graph = proto.graph
    described: list[Any] = [proto, graph, *graph.node, *graph.initializer]
    described += [*graph.input, *graph.output, *graph.value_info]
    for one in described:
        one.ClearField("doc_string")
        one.ClearField("metadata_props")
    graph.name = "network"
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
    for values, word in ((graph.input, "input"), (graph.output, "output")):
        for place, value in enumerate(values):
            _rename(graph, value.name, word if len(values) == 1 else f"{word}_{place}")


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    if old == new:
        return
    taken = {name for node in graph.node for name in node.output}
    taken |= {one.name for one in (*graph.input, *graph.initializer)}
    if new in taken:
        _rename(graph, new, f"{new}_inner")
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for one in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        if one.name == old:
            one.name = new


def _root_cause(error: BaseException) -> str:
    """The first line of the innermost error: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
