"""The runtime `torch`: an exported program, self-contained, that PyTorch loads without the network's source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.processors import Target
from edgeprune.errors import CompileError

if TYPE_CHECKING:
    import torch


def build(
    source: tuple[torch.nn.Module, tuple[torch.Tensor, ...]], folder: Path, target: Target, threads: int
) -> Built:
    """Export a module and save it.

    Raises:
        CompileError: torch.export cannot follow the module.
    """
    import torch

    del target, threads  # both are the worker's business
    model, example_inputs = source
    try:
        program = torch.export.export(model, example_inputs)
    except Exception as error:  # torch.export raises errors of any kind, the module's own among them
        raise CompileError(
            f"torch.export cannot follow {type(model).__name__}: {type(error).__name__}",
            hint="make forward free of data-dependent branches",
            detail=str(error),
        ) from error
    torch.export.save(program, folder / "model.pt2")
    weights = [*model.parameters(), *model.buffers()]
    return Built("model.pt2", weights_bytes=sum(tensor.numel() * tensor.element_size() for tensor in weights))
