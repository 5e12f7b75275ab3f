"""Networks that torch.fx can not follow, traced by torch.export. Start with `trace_exported`.

torch.export runs forward on tensors without numbers, so Python may decide by shapes, types and sizes; only decisions
by the numbers themselves stop it. Batch and image size stay open where the model allows it; what is settled for the
example inputs is checked when the network runs (`sizes.HeldSizes`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.exporting import quiet
from edgeprune.shrinking.raising import leaf_node, raise_graph
from edgeprune.shrinking.sizes import HeldSizes, held_sizes
from edgeprune.shrinking.tracing import Traced, traced
from edgeprune.user_code import untraceable

_HELD_SIZES = "held_sizes"
_BATCH_AXIS = 0
_SMALL_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Edges of the images that a trace is tried on: at one of them feature maps are one pixel wide."""


def trace_exported(model: nn.Module, example_inputs: tuple[Any, ...]) -> Traced:
    """Trace a model in eval mode through torch.export.

    Args:
        model: Its modules are shared, not copied.
        example_inputs: The positional arguments of forward: tensors, or tuples, lists and dicts of them.

    Returns:
        The graph, with its modules under the names that they have in the model, and the sizes that it holds for:
        `hold_sizes` puts that check into the network that is made of it.

    Raises:
        TraceError: torch.export can not follow forward either; the message names the line.
    """
    cause: Exception = ValueError("forward goes other ways for other sizes")
    doubled = _of_two(example_inputs)
    tries = [(doubled, True), (example_inputs, True), (example_inputs, False)]
    for inputs, sizes_stay_open in tries[1:] if doubled is example_inputs else tries:
        try:
            program = _export(model, inputs, sizes_stay_open)
        except Exception as error:  # torch.export has no root of its own for what it can not follow
            cause = error
            continue
        root, functional = raise_graph(program, model, inputs)
        for strictly in (False, True):
            held = held_sizes(program, _tensors(inputs), strictly)
            # a forward that decides by its batch holds for two images alone
            if _runs(held, *_tensors(example_inputs)) and _equals(model, root, example_inputs, held):
                return traced(root, root.graph, held, functional)
    raise untraceable(model, cause, "neither torch.fx nor torch.export can") from cause


def hold_sizes(root: Traced, shrunk: fx.GraphModule, example_inputs: tuple[Any, ...]) -> tuple[str, ...]:
    """Make a network refuse the sizes that the trace it comes from does not hold for; returns notes for the report."""
    held = root.sizes
    if held is None:
        return ()
    if held.holds_for_all:
        return ("traced by torch.export, since torch.fx can not follow forward",)
    places = [place for place in shrunk.graph.nodes if place.op == "placeholder"]
    paths, _ = pytree.tree_flatten_with_path(example_inputs)
    shrunk.add_submodule(_HELD_SIZES, held)
    with shrunk.graph.inserting_before(places[-1].next):
        leaves = [leaf_node(shrunk.graph, places, path) for path, leaf in paths if isinstance(leaf, Tensor)]
        shrunk.graph.call_module(_HELD_SIZES, tuple(leaves))
    shrunk.recompile()
    return (f"traced by torch.export, since torch.fx can not follow forward: holds for inputs {held.extra_repr()}",)


def _export(model: nn.Module, inputs: tuple[Any, ...], sizes_stay_open: bool) -> torch.export.ExportedProgram:
    shapes = pytree.tree_map(_open_axes, inputs) if sizes_stay_open else None
    with quiet(), torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
        functional: torch.export.ExportedProgram = program.run_decompositions({})
    return functional


def _open_axes(value: Any) -> dict[int, Any] | None:
    """Batch, image and sequence may change; the channels of a batch of vectors or images are the model's."""
    if not isinstance(value, Tensor):
        return None
    fixed = {1} if value.is_floating_point() and value.dim() != 3 else set()
    return {axis: torch.export.Dim.AUTO for axis in range(value.dim()) if axis not in fixed}


def _of_two(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with a batch of two: torch.export takes a size of one for a constant."""
    tensors = _tensors(inputs)
    if not tensors or any(one.dim() == 0 or one.shape[_BATCH_AXIS] != 1 for one in tensors):
        return inputs

    def twice(leaf: Any) -> Any:
        return torch.cat([leaf, leaf], _BATCH_AXIS) if isinstance(leaf, Tensor) else leaf

    doubled: tuple[Any, ...] = pytree.tree_map(twice, inputs)
    return doubled


def _equals(model: nn.Module, root: fx.GraphModule, inputs: tuple[Any, ...], held: HeldSizes) -> bool:
    """Whether the traced network is the model, for one image and for small ones too, where sizes become one."""
    batches = [inputs, pytree.tree_map(lambda leaf: _cut(leaf, 1, None), inputs)]
    batches += [pytree.tree_map(lambda leaf, edge=edge: _cut(leaf, None, edge), inputs) for edge in _SMALL_EDGES]
    return all(_agree(model, root, batch) for batch in batches if _runs(held, *_tensors(batch)))


def _agree(model: nn.Module, root: fx.GraphModule, batch: tuple[Any, ...]) -> bool:
    """Whether both give the same; where the model itself fails there is nothing to agree on."""
    with torch.no_grad():
        try:
            expected = _tensors(model(*copy.deepcopy(batch)))
        except Exception:
            return True
        try:
            actual = _tensors(root(*copy.deepcopy(batch)))
        except Exception:
            return False
    # the same operators on the same numbers: a decision that went another way shows in the first digits
    return [one.shape for one in expected] == [other.shape for other in actual] and all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
        if one.is_floating_point() or one.is_complex()
        else torch.equal(one, other)
        for one, other in zip(expected, actual, strict=True)
    )


def _runs(held: HeldSizes, *tensors: Tensor) -> bool:
    try:
        held(*tensors)
    except ModelError:
        return False
    return True


def _cut(leaf: Any, images: int | None, edge: int | None) -> Any:
    """The first images, or the corners of this edge, of a batch of images."""
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return leaf
    space = leaf.dim() - 2 if leaf.is_floating_point() else 0
    return leaf[(slice(images), *[slice(None)] * min(1, leaf.dim() - 1), *[slice(edge)] * max(0, space))]


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
