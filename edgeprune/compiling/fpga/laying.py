"""Channels in the places that their readers want, so that nobody copies a tensor to move them. Start with `lay`.

The sum of two tensors of which each lacks channels (the index-addition of shrunk networks) wants the first one's
channels apart. Its maker can write them apart, and zeros between, at no cost while they fill as many planes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from edgeprune.compiling.fpga.commands import SHIFTS
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import Layer
from edgeprune.compiling.fpga.operations import NOTHING, Int64, Operation, Value


def lay(core: Core, operations: Sequence[Operation], kept: Collection[Value]) -> list[Operation]:
    """The same network without the copies that the makers of what is copied can save.

    Args:
        core: Decides how many channels are a plane.
        operations: In order.
        kept: Tensors that somebody else reads, too.
    """
    found = list(operations)
    while True:
        for copy in reversed([one for one in found if one.kind == "Copy"]):
            better = _without(core, found, copy, kept)
            if better is not None:
                found = better
                break
        else:
            return found


def _without(
    core: Core, operations: Sequence[Operation], copy: Operation, kept: Collection[Value]
) -> list[Operation] | None:
    """The operations without a copy, its target made by whoever made its source; None if that cannot be."""
    old, new = copy.source, copy.target
    maker = next((one for one in operations if one.target == old), None)
    if maker is None or old in kept or copy.layer.stride != (1, 1):
        return None
    if core.planes(new.channels) != core.planes(old.channels) or not _can_be_laid(maker.layer, old):
        return None
    places = places_of(copy.layer)
    readers = [one for one in operations if old in one.reads and one is not copy]
    if any(one.skip == old or not _can_read(one.layer, places) for one in readers):
        return None
    skip = _skip_laid(operations, maker, places)
    if maker.skip is not None and skip is None:
        return None
    added = None if skip is None else skip.target
    changed = {id(maker): replace(maker, layer=placed(maker.layer, places), target=new, skip=added)}
    changed |= {id(one): replace(one, layer=_reading(one.layer, places), source=new) for one in readers}
    if skip is not None:
        changed |= {id(one): skip for one in operations if one.target == maker.skip}
    return [changed.get(id(one), one) for one in operations if one is not copy]


def _skip_laid(operations: Sequence[Operation], maker: Operation, places: Int64) -> Operation | None:
    """The copy that a maker adds, with its channels in other places; None if it adds none, or no copy of its own."""
    if maker.skip is None:
        return None
    copy = next((one for one in operations if one.target == maker.skip and one.kind == "Copy"), None)
    if copy is None or sum(maker.skip in one.reads for one in operations) > 1:
        return None
    target = replace(copy.target, name=f"{copy.target.name}'", channels=len(places))
    return replace(copy, layer=placed(copy.layer, places), target=target)


def places_of(copy: Layer) -> Int64:
    """For each channel that 0/1 weights make the one that it is of, or `NOTHING`."""
    chosen = copy.weights[:, :, 0, 0]
    return np.where(chosen.max(axis=1) != 0, chosen.argmax(axis=1), NOTHING)


def placed(layer: Layer, places: Int64) -> Layer:
    """A layer with its filters in other places: for each channel the filter that it is, or zeros."""
    real = places != NOTHING
    return replace(
        layer,
        weights=np.where(real[:, None, None, None], layer.weights[places], np.int8(0)),
        bias=np.where(real, layer.bias[places], 0).astype(np.int32),
        multiplier=np.where(real, layer.multiplier[places], 0).astype(np.int32),
        shift=np.where(real, layer.shift[places], SHIFTS[-1]),
    )


def _can_be_laid(layer: Layer, made: Value) -> bool:
    """Whether a layer's channels can be made in other places, and zeros between that are zeros for the readers."""
    zero = made.quanta.zero
    return layer.groups == 1 and not layer.maximum and layer.low <= zero <= layer.high


def _can_read(layer: Layer, places: Int64) -> bool:
    """Whether a layer finds every channel that it reads once."""
    if layer.groups != 1 or layer.maximum:
        return False
    used = np.flatnonzero(layer.weights.any(axis=(0, 2, 3)))
    return all((places == channel).sum() == 1 for channel in used)


def _reading(layer: Layer, places: Int64) -> Layer:
    """A layer that reads its channels in other places."""
    real = places != NOTHING
    weights = np.where(real[None, :, None, None], layer.weights[:, places], np.int8(0))
    return replace(layer, weights=weights)
