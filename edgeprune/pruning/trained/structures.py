"""Parts of a convolution's weight that go together, as PSP names them (figure 1, table 1). Start with `AXES`.

For a weight [K, C, R, S] a column is one entry of [C, R, S], a channel one of [C] (an input feature map), a shape one
of [R, S], a filter one of [K], a layer all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from edgeprune.errors import ModelError, UnknownNameError
from edgeprune.pruning.sites import find_sites, trace

AXES = {"column": (1, 2, 3), "channel": (1,), "shape": (2, 3), "filter": (0,), "layer": ()}
_OUTSIDE = ("shortcut", "downsample", "transition", "skip")


def parts(structure: str) -> list[str]:
    """The structures that a name joins: "layer+channel" is two.

    Raises:
        UnknownNameError: There is no such structure.
    """
    names = structure.split("+")
    for name in names:
        if name not in AXES:
            raise UnknownNameError("structure", name, AXES)
    return names


def parameter_shape(structure: str, weight: Sequence[int]) -> tuple[int, ...]:
    """The shape of one number for each structure of a weight, so that it broadcasts over the weight.

    >>> parameter_shape("column", (8, 4, 3, 3)), parameter_shape("shape", (8, 4, 3, 3))
    ((1, 4, 3, 3), (1, 1, 3, 3))
    """
    return tuple(size if axis in AXES[structure] else 1 for axis, size in enumerate(weight))


def inner_convolutions(model: nn.Module) -> list[str]:
    """Convolutions but for the input's, the output's, and those of transitions and shortcuts (PSP, section 4).

    The last two are known by their names: "transition", "shortcut", "downsample" or "skip" is part of them.

    Raises:
        ModelError: There is none.
    """
    found = [site.layer for site in find_sites(model) if isinstance(model.get_submodule(site.layer), nn.Conv2d)]
    inner = [name for name in found[1:] if not any(word in name for word in _OUTSIDE)]
    if not inner:
        raise ModelError(
            f"{type(model).__name__} has no convolution between the first and the last",
            hint="structures of convolutions are for deeper networks; iterative and slimming prune this one",
        )
    return inner


def bypassed(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """Those of the layers that a sum or a concatenation leads past: without them input and output are still joined."""
    graph = trace(model)
    return [name for name in layers if _leads_past(graph, name)]


def _leads_past(graph: fx.Graph, layer: str) -> bool:
    waiting = [node for node in graph.nodes if node.op == "placeholder"]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.op == "output":
            return True
        for user in node.users:
            if user not in seen and not (user.op == "call_module" and user.target == layer):
                seen.add(user)
                waiting.append(user)
    return False
