"""Additions that the core does while it writes a convolution's result. Start with `fuse`.

The arithmetic stays what it was, in two roundings: first the convolution's own result, then the sum. Where the sum has
its channels in other places than the convolution, its filters are made in those places, if that costs no more than
moving their result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import Layer
from edgeprune.compiling.fpga.laying import placed, places_of
from edgeprune.compiling.fpga.operations import Operation, Value


def fuse(core: Core, operations: Sequence[Operation], kept: Collection[Value]) -> list[Operation]:
    """The same network with additions done by the layers that make what is added.

    Args:
        core: Decides what costs more.
        operations: In order.
        kept: Tensors that somebody else reads, too.
    """
    found = list(operations)
    while True:
        readers = Counter(value for operation in found for value in operation.reads)
        alone = {value for value, count in readers.items() if count == 1 and value not in kept}
        makers = {operation.target: operation for operation in found}
        for place, operation in enumerate(found):
            pair = _fused(core, operation, makers, alone)
            if pair is not None:
                gone, made = pair
                found = [made if k == place else one for k, one in enumerate(found) if one is not gone]
                break
        else:
            return found


def _fused(
    core: Core, total: Operation, makers: dict[Value, Operation], alone: Collection[Value]
) -> tuple[Operation, Operation] | None:
    """The layer that can take an addition in, and both as one."""
    if total.skip is None or total.kind != "Add":
        return None
    for one in (total, _turned(total)):
        maker = makers.get(one.source) if one is not None else None
        if one is None or maker is None or one.source not in alone or not _can_take(maker.layer, one.layer):
            continue
        if _extra_passes(core, maker, one) <= 0:
            layer = _placed(maker.layer, one.layer)
            nodes, kind = maker.nodes + one.nodes, f"{maker.kind}+{one.kind}"
            return maker, replace(one, nodes=nodes, kind=kind, layer=layer, source=maker.source, macs=maker.macs)
    return None


def _turned(total: Operation) -> Operation | None:
    """The same addition with the other tensor as its first; None where channels are picked."""
    added, skip = total.layer.addition, total.skip
    if added is None or skip is None or not _is_whole(total.layer):
        return None
    zero = skip.quanta.zero
    layer = replace(
        total.layer,
        bias=np.full_like(total.layer.bias, -zero),
        padding_value=zero,
        zero=zero,
        addition=replace(
            added, scale_main=added.scale_skip, scale_skip=added.scale_main, zero_skip=total.source.quanta.zero
        ),
    )
    return replace(total, layer=layer, source=skip, skip=total.source)


def _is_whole(layer: Layer) -> bool:
    weights = layer.weights[:, :, 0, 0]
    return (
        layer.stride == (1, 1)
        and weights.shape[0] == weights.shape[1]
        and bool((weights == np.eye(len(weights))).all())
    )


def _can_take(layer: Layer, total: Layer) -> bool:
    if layer.addition is not None or layer.maximum or (layer.low, layer.high) != (-128, 127):
        return False
    return total.stride == (1, 1) and (layer.groups == 1 or _is_whole(total))


def _extra_passes(core: Core, maker: Operation, total: Operation) -> int:
    """Passes over the picture that both cost as one, less those that they cost as two."""
    taps = int(np.prod(maker.layer.weights.shape[2:]))
    planes_in = 1 if maker.layer.is_channelwise else core.planes(maker.layer.in_channels // maker.layer.groups)
    planes, placed = core.planes(maker.layer.out_channels), core.planes(total.layer.out_channels)
    return (placed - planes) * planes_in * taps - placed * planes


def _placed(layer: Layer, total: Layer) -> Layer:
    """The layer with its filters where the sum has their channels; where it has none they give zero."""
    own = layer if _is_whole(total) else placed(layer, places_of(total))
    return replace(own, addition=total.addition, low=total.low, high=total.high)
