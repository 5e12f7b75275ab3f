"""The proof of outputs that are whole numbers or truth values: the real numbers that they are chosen by are the same.

Start with `verify_choices`. A class by argmax is mostly right even where its scores are wrong, so equal classes of a
few samples prove little. What the choice reads is compared as `verify` compares outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.shrinking.graph import Site
from edgeprune.shrinking.operators import Opaque
from edgeprune.shrinking.operators.kernels import LAYERS
from edgeprune.shrinking.plan import Plan
from edgeprune.shrinking.rewrite import install
from edgeprune.shrinking.shapes import values_of
from edgeprune.shrinking.tracing import Traced
from edgeprune.shrinking.verify import verify


def verify_choices(
    plan: Plan,
    shrunk: fx.GraphModule,
    places: Mapping[fx.Node, fx.Node],
    inputs: tuple[Any, ...],
    example_inputs: tuple[Any, ...],
) -> float:
    """Compare what outputs that are no real numbers are chosen by.

    Args:
        plan: What the shrunk network was made by.
        shrunk: The shrunk network.
        places: The node of the shrunk network that holds what is left of one of the masked network's.
        inputs: As `verify` has them.
        example_inputs: As `verify` has them.

    Returns:
        The largest difference, as a fraction of the largest of these numbers; 0 where all outputs are real numbers.

    Raises:
        ShrinkError: They differ by more than rounding.
    """
    root, sites = plan.network.root, plan.network.by_node
    (output,) = (node for node in root.graph.nodes if node.op == "output")
    if all(_gives_real(sites[node], sites) for node in output.all_input_nodes):
        return 0.0
    left = set(shrunk.graph.nodes)
    chosen_by = [node for node in _chosen_by(output, values_of(root, inputs)) if places.get(node) in left]
    if not chosen_by:
        return 0.0
    reference: list[_Tap] = []
    result: list[_Tap] = []
    for node in chosen_by:
        form, layout = sites[node].form, plan.layouts[node]
        if form is None or not form.channels:
            reference.append((node, None))
            result.append((places[node], None))
            continue
        exact = np.flatnonzero(plan.decisions[node].exact[layout])
        reference.append((node, _picks(form.axis, layout[exact], form.channels)))
        result.append((places[node], _picks(form.axis, exact, len(layout))))
    kind = type(root.model).__name__
    masked = _tapped(_modules(root), root.graph, reference, kind)
    return verify(masked, _tapped(shrunk, shrunk.graph, result, kind), inputs, example_inputs)


def _gives_real(site: Site, sites: Mapping[fx.Node, Site]) -> bool:
    """Whether a node surely gives real numbers, which saves a run of the network."""
    if isinstance(site.module, LAYERS):
        return True
    known = bool(site.operands) and not isinstance(site.operator, Opaque)
    return known and all(_gives_real(sites[operand], sites) for operand in site.operands)


def _chosen_by(output: fx.Node, values: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The last finite real tensors before outputs that are none themselves, in no order."""
    waiting = [node for node in output.all_input_nodes if not _is_real(values[node])]
    found: dict[fx.Node, None] = {}
    seen: set[fx.Node] = set(waiting)
    while waiting:
        for node in waiting.pop().all_input_nodes:
            value = values[node]
            if _is_real(value) and bool(torch.isfinite(value).all()):
                found[node] = None
            elif node not in seen:
                seen.add(node)
                waiting.append(node)
    return [node for node in found if node.op not in ("placeholder", "get_attr")]


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


_Picks = tuple[slice | list[int], ...] | None
_Tap = tuple[fx.Node, _Picks]


def _picks(axis: int, channels: np.ndarray[Any, Any], count: int) -> _Picks:
    """An index of these channels, None for all in their order."""
    if np.array_equal(channels, np.arange(count)):
        return None
    return (*[slice(None)] * axis, channels.tolist())


def _tapped(root: nn.Module, graph: fx.Graph, taps: Sequence[_Tap], kind: str) -> fx.GraphModule:
    """The network with other outputs: some nodes of its graph, each with all its channels or a few."""
    twin = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    twin.graph_copy(graph, copies)
    outputs = [
        copies[node] if picks is None else twin.call_function(_pick, (copies[node], picks)) for node, picks in taps
    ]
    twin.output(tuple(outputs))
    return fx.GraphModule(root, twin, kind).eval()


def _pick(tensor: Tensor, places: tuple[slice | list[int], ...]) -> Tensor:
    return tensor[places]


def _modules(traced: Traced) -> nn.Module:
    """The traced network's modules and tensors under one root."""
    root = nn.Module()
    for node in traced.graph.nodes:
        if node.op == "call_module":
            install(root, str(node.target), traced.modules[str(node.target)])
        elif node.op == "get_attr":
            install(root, str(node.target), traced.attribute(str(node.target)))
    return root
