"""Networks by name, built from what `catalogue.py` says of them. Start with `build`.

A network's module is imported when it is built, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.models.catalogue import ModelEntry, entries

if TYPE_CHECKING:
    from torch import nn


_ENTRIES = entries()


def names() -> list[str]:
    """The networks that can be named, sorted by family and size.

    >>> names()[:2]
    ['lenet5', 'lenet300']
    """
    return list(_ENTRIES)


def entry(name: str) -> ModelEntry:
    """What is known of the network called `name`; UnknownNameError if there is none.

    >>> entry("lenet5").input_shape
    (1, 28, 28)
    """
    if name not in _ENTRIES:
        raise UnknownNameError("model", name, _ENTRIES)
    return _ENTRIES[name]


def build(
    name: str, num_classes: int = 10, in_channels: int | None = None, *, seed: int = 0, **options: Any
) -> nn.Module:
    """Build a network with fresh weights; the same seed gives the same weights.

    Args:
        name: One of `names()`.
        num_classes: Number of outputs, 1 or more.
        in_channels: Channels of the input; None takes the paper's (`entry(name).input_shape[0]`).
        seed: Of the initial weights. The caller's own random state is left as it was.
        options: The family's, such as `shortcut="pad"`; `entry(name).options` has their defaults.

    Returns:
        A module in training mode: float32 [N, C, H, W] -> float32 [N, num_classes], or [N, num_classes, H, W] for
        segmentation.

    Raises:
        UnknownNameError: No such network, or no such option.
        UserError: A number or an option's value is out of range.

    >>> sum(p.numel() for p in build("lenet5").parameters())
    431080
    """
    found = entry(name)
    for key in options:
        if key not in found.options:
            raise UnknownNameError("option", key, found.options, where=f"model {name}")
    channels = found.input_shape[0] if in_channels is None else in_channels
    for what, number in (("num_classes", num_classes), ("in_channels", channels)):
        if number < 1:
            raise UserError(f"model {name}: {what} is {number}", hint=f"{what} is a whole number of at least 1")

    import torch

    module, _, function = found.factory.partition(":")
    factory = cast("Callable[..., nn.Module]", getattr(importlib.import_module(module), function))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(num_classes, channels, **{**found.options, **options, **found.preset})
