"""Weights in files: written as safetensors, read from safetensors or a torch file. Start with `load_weights`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from edgeprune.errors import WeightsError
from edgeprune.storage import write_whole

SHOWN = 5
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model")
FACTS_KEY = "edgeprune"


def save_checkpoint(path: Path, model: nn.Module, facts: Mapping[str, Any] | None = None) -> Path:
    """Write a model's state as safetensors; the same state and facts give the same bytes.

    Args:
        path: Where; folders on the way are made, the file appears whole.
        model: Its `state_dict` is written, moved to the CPU.
        facts: What made it (seed, schedule, accuracy ...), anything that JSON can hold.

    Raises:
        StorageError: The file cannot be written.
    """
    tensors = {name: one.detach().cpu().clone().contiguous() for name, one in model.state_dict().items()}
    # one key, because safetensors keeps no order among several
    metadata = {FACTS_KEY: json.dumps(dict(facts or {}), sort_keys=True)}
    return write_whole(path, save(tensors, metadata))


def load_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Read weights into a model, in place, if every one of them fits.

    Args:
        model: Changed only if everything fits.
        path: A safetensors file, or `.pt`, `.pth`, `.ckpt` with a state dict (alone, or under "state_dict",
            "model_state_dict" or "model"; a leading "module." of DataParallel is dropped). Torch files are read
            with `weights_only=True`: no code in them is run.

    Returns:
        The facts that `save_checkpoint` stored; empty for files of others.

    Raises:
        WeightsError: The file is missing or unreadable, a tensor is missing, unexpected, of another shape, or holds
            NaN or infinity; the message lists the first few.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(Path(folder) / "a.safetensors", nn.Linear(3, 2), {"seed": 1})
    ...     load_weights(nn.Linear(3, 2), path)
    {'seed': 1}
    """
    tensors, facts = _read(Path(path))
    _require_fit(model, tensors, Path(path))
    model.load_state_dict(tensors)
    return facts


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not path.is_file():
        raise WeightsError(f"no weights file {path}", hint="check the path")
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path), {}
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
        facts = json.loads(metadata.get(FACTS_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file: {error}",
            hint="torch files end in " + ", ".join(TORCH_SUFFIXES) + "; if it was copied, copy it again",
        ) from error
    return tensors, facts if isinstance(facts, dict) else {}


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    hint = "save the state dict alone: torch.save(model.state_dict(), path)"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", hint="check the file") from error
    except Exception as error:  # a file of whatever bytes makes torch raise whatever
        # torch's own text is advice, in colours, on how to run what is in the file
        refused = isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error)
        why = "it holds more than tensors (a whole module?)" if refused else "it is not a whole torch file"
        raise WeightsError(f"{path} cannot be read as plain weights: {why}", hint=hint) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(one, torch.Tensor) for one in content.values()):
        raise WeightsError(f"{path} holds no state dict", hint=hint)
    return {str(name).removeprefix("module."): one for name, one in content.items()}


def _require_fit(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    wanted = model.state_dict()
    problems = [f"missing {name} {_shape(one)}" for name, one in wanted.items() if name not in tensors]
    problems += [f"unexpected {name} {_shape(one)}" for name, one in tensors.items() if name not in wanted]
    both = [(name, wanted[name], tensors[name]) for name in wanted if name in tensors]
    problems += [
        f"{name} is {_shape(given)} in the file and {_shape(own)} in the model"
        for name, own, given in both
        if own.shape != given.shape
    ]
    if problems:
        hint = "build the model with the options (classes, input channels, shortcut ...) that it was trained with"
        raise WeightsError(f"{path} does not fit {type(model).__name__}: {_first_few(problems)}", hint=hint)
    broken = [
        f"{name} {_shape(given)}"
        for name, _, given in both
        if given.is_floating_point() and not bool(torch.isfinite(given).all())
    ]
    if broken:
        raise WeightsError(
            f"{path} holds NaN or infinity in {_first_few(broken)}", hint="the training diverged: use an earlier file"
        )


def _first_few(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more


def _shape(tensor: torch.Tensor) -> str:
    return "[" + ", ".join(str(size) for size in tensor.shape) + "]"
