"""Nodes that only move values: as views of the tensor that they read. `OPERATORS` has them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.compiling.fpga.found import Found
from edgeprune.compiling.fpga.operations import NOTHING, View
from edgeprune.compiling.fpga.qdq import attributes

if TYPE_CHECKING:
    import onnx


def _pad(found: Found, node: onnx.NodeProto) -> View | None:
    """Channels of zeros before and after (below zero: channels that are cut off)."""
    view, pads = found.views.get(node.input[0]), found.graph.integers(node.input[1])
    if view is None or pads is None or attributes(node).get("mode", b"constant") != b"constant":
        return None
    if len(node.input) > 2 and node.input[2] and not _is_zero(found, node.input[2]):
        return None
    rank = len(pads) // 2
    if len(node.input) > 3 and node.input[3]:
        axes = found.graph.integers(node.input[3])
        if axes is None:
            return None
        rank = len(found.graph.shape(node.input[0]))
        spread = [0] * (2 * rank)
        for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
            spread[axis % rank], spread[rank + axis % rank] = before, after
        pads = spread
    before, after = pads[1], pads[rank + 1]
    if any(pads[k] for k in range(len(pads)) if k % rank != 1):
        return None
    places = np.arange(max(-before, 0), view.channels - max(-after, 0))
    return view.pick(np.pad(places, (max(before, 0), max(after, 0)), constant_values=NOTHING))


def _is_zero(found: Found, name: str) -> bool:
    constant = found.graph.constants.get(name)
    if constant is None:
        dequantised = found.graph.constant(name)
        constant = None if dequantised is None else dequantised.values
    return constant is not None and not constant.any()


def _gather(found: Found, node: onnx.NodeProto) -> View | None:
    """Some channels, in another order."""
    view, indices = found.views.get(node.input[0]), found.graph.integers(node.input[1])
    if view is None or indices is None or attributes(node).get("axis", 0) != 1:
        return None
    if len(found.graph.shape(node.input[1])) != 1:
        return None
    places = np.array(indices, np.int64)
    return view.pick(np.where(places < 0, places + view.channels, places))


def _slice(found: Found, node: onnx.NodeProto) -> View | None:
    """Channels of a range; every so many rows and columns from the first on."""
    view = found.views.get(node.input[0])
    starts, ends = (found.graph.integers(name) for name in node.input[1:3])
    axes, steps = (found.graph.integers(name) if name else None for name in (*node.input[3:], "", "")[:2])
    if view is None or starts is None or ends is None:
        return None
    for k, start in enumerate(starts):
        axis, step = (axes[k] if axes else k), (steps[k] if steps else 1)
        size = found.graph.shape(node.input[0])[axis]
        places = np.arange(size)[slice(start, ends[k], step)]
        if axis == 1:
            view = view.pick(places)
        elif axis in (2, 3) and step > 0 and not view.flat and np.array_equal(places, np.arange(0, size, step)):
            both = (view.step[0] * step, view.step[1]) if axis == 2 else (view.step[0], view.step[1] * step)
            view = replace(view, step=both)
        elif len(places) != size or step != 1:
            return None
    return view


def _reshape(found: Found, node: onnx.NodeProto) -> View | None:
    """The same shape, a picture laid flat, or a vector as a picture of one pixel."""
    view = found.views.get(node.input[0])
    before, after = found.graph.shape(node.input[0]), found.graph.shape(node.output[0])
    if view is None or not after:
        return None
    one_pixel = view.picture == (1, 1)
    if before == after or (one_pixel and len(after) in (2, 4) and after[:2] == (1, view.channels)):
        return view
    if len(before) != 4 or len(after) != 2 or after[0] != 1 or view.step != (1, 1) or view.flat:
        return None
    flat = replace(view, picked=None, flat=True)
    if view.picked is None:
        return flat
    pixels, places = view.value.rows * view.value.columns, view.places[:, None]
    spread = np.where(places == NOTHING, NOTHING, places * pixels + np.arange(pixels))
    return flat.pick(spread.reshape(-1))


def _same(found: Found, node: onnx.NodeProto) -> View | None:
    return found.views.get(node.input[0])


OPERATORS: Mapping[str, Callable[[Found, onnx.NodeProto], View | None]] = {
    "Pad": _pad, "Gather": _gather, "Slice": _slice, "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape,
    "Unsqueeze": _reshape, "Identity": _same, "Dropout": _same,
}  # fmt: skip
