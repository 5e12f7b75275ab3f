"""What layers give while a network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn


@contextmanager
def watched(model: nn.Module, layers: Iterable[str], look: Callable[[str, torch.Tensor], object]) -> Iterator[None]:
    """In this block `look` is given each layer's name and output; a tensor that it returns takes the output's place."""
    with ExitStack() as handles:
        for name in layers:
            handle = model.get_submodule(name).register_forward_hook(partial(_show, look, name))
            handles.callback(handle.remove)
        yield


def _show(
    look: Callable[[str, torch.Tensor], object], name: str, _layer: nn.Module, _inputs: object, output: torch.Tensor
) -> object:
    return look(name, output)
