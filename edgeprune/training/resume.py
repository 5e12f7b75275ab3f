"""A training that was interrupted goes on from its last epoch. Start with `save_state`; `load_state` takes it back.

The file holds plain tensors, numbers and dicts; reading it runs no code. It is only taken by the training that wrote
it: the same schedule, seed, masks, hooks and initial weights.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeprune.storage import write_whole

if TYPE_CHECKING:
    from edgeprune.training.loop import LoopState

PLAIN = ("epoch", "best_epoch", "gained_epoch", "best_accuracy", "best_weights", "losses")


def training_identity(model: nn.Module, masks: Mapping[str, torch.Tensor], *made_with: object) -> str:
    """What tells this training from any other: hexadecimal, of the initial weights and what they are trained with."""
    digest = hashlib.sha256(repr(made_with).encode())
    for name, value in [*model.state_dict().items(), *masks.items()]:
        digest.update(f"{name} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, state: LoopState, identity: str) -> None:
    """Write everything that the next epoch starts from; the file appears whole.

    Raises:
        StorageError: The file cannot be written.
    """
    content = {name: getattr(state, name) for name in PLAIN} | {
        "identity": identity,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "order": state.random.get_state(),
        "dropout": torch.get_rng_state(),
        "hooks": state.hooks.state(),
    }
    written = io.BytesIO()
    torch.save(content, written)
    write_whole(path, written.getvalue())


def load_state(path: Path, state: LoopState, identity: str) -> bool:
    """Go on where a file was written; False if there is none, it is damaged, or another training wrote it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["identity"] != identity:
            return False
    except Exception:  # a missing or torn file makes torch raise whatever; the training then begins anew
        return False
    for name in PLAIN:
        setattr(state, name, content[name])
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.random.set_state(content["order"])
    torch.set_rng_state(content["dropout"])
    state.hooks.restore(content["hooks"])
    return True
