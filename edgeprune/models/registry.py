"""Which networks exist: their papers, input shapes and options, known without loading torch.

Start with `build`. A new family is one new module with a factory and its line in `_entries`. A factory is called as
`factory(num_classes, in_channels, **options)`; its module is imported when a network is built, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from edgeprune.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a network before it is built.

    Args:
        name: The name in a matrix and on the command line.
        summary: One line for lists.
        paper: Where the network was published.
        input_shape: (channels, height, width) of one input in the paper.
        factory: "module:function" that builds it.
        preset: Arguments that make this member of its family; not for the user to change.
        options: What the user may set, with the defaults.
    """

    name: str
    summary: str
    paper: str
    input_shape: tuple[int, int, int]
    factory: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def _resnet(depth: int) -> ModelEntry:
    return ModelEntry(
        name=f"resnet{depth}",
        summary=f"ResNet-{depth} for small images: 3 stages of {(depth - 2) // 6} blocks, 16-32-64 filters",
        paper="He et al. 2016, Deep residual learning for image recognition, section 4.2",
        input_shape=(3, 32, 32),
        factory="edgeprune.models.resnet:build",
        preset={"depth": depth},
        options={"shortcut": "projection"},
    )


def _entries() -> Mapping[str, ModelEntry]:
    entries = [
        ModelEntry(
            name="lenet5",
            summary="LeNet-5 20-50-500-10: two 5x5 convolutions, two linear layers",
            paper="LeCun et al. 1998, in the 20-50-500-10 form of Caffe that the pruning papers use",
            input_shape=(1, 28, 28),
            factory="edgeprune.models.lenet:build",
            options={"image_size": 28},
        ),
        *(_resnet(depth) for depth in (20, 32, 44, 56, 110)),
    ]
    return MappingProxyType({one.name: one for one in entries})


_ENTRIES = _entries()


def names() -> list[str]:
    """The networks that can be named, sorted by family and size.

    >>> names()[:2]
    ['lenet5', 'resnet20']
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
        A module in training mode: float32 [N, C, H, W] -> float32 [N, num_classes].

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
