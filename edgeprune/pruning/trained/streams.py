"""Which layers read the same channels: a tensor, or a stream of sums. Start with `reader_groups`.

Channels of tensors that are added are one set of channels (learned_pruning_models_thesis, section 4.5): all that read
any of them share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.pruning.sites import MIXING_FUNCTIONS, trace

_INPUT = "input "
_JOINING = (torch.cat, torch.concat, "cat")


@dataclass(frozen=True)
class ReaderGroup:
    """Convolutions that read one set of channels; `complete` if no other mixing layer or output reads it too."""

    readers: tuple[str, ...]
    producers: tuple[str, ...]
    channels: int
    complete: bool


def reader_groups(model: nn.Module) -> list[ReaderGroup]:
    """Groups of plain (not grouped) Conv2d modules that read channels made by other layers, in forward order.

    The image's own channels are nobody's to prune and are left out.

    Raises:
        TraceError: torch.fx cannot follow the model.
    """
    modules = dict(model.named_modules())
    graph = trace(model)
    made_by: dict[fx.Node, frozenset[str]] = {}
    read: dict[str, frozenset[str]] = {}
    outside: set[str] = set()
    for node in graph.nodes:
        sources = frozenset().union(*(made_by[one] for one in node.all_input_nodes))
        mixes = node.op == "call_module" and isinstance(modules[str(node.target)], _ConvNd | nn.Linear)
        if node.op == "placeholder":
            made_by[node] = frozenset([_INPUT + node.name])
        elif mixes:
            name = str(node.target)
            made_by[node] = frozenset([name])
            if _is_plain(modules[name]) and name not in read:
                read[name] = sources
            else:
                outside |= sources
        elif node.target in _JOINING:
            # places in what is joined are not those of its parts
            made_by[node] = frozenset([f"joined {node.name}"])
            outside |= sources
        else:
            made_by[node] = sources
            if node.op == "output" or node.target in MIXING_FUNCTIONS:
                outside |= sources
    return _joined(read, outside, modules)


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1


def _joined(read: dict[str, frozenset[str]], outside: set[str], modules: dict[str, nn.Module]) -> list[ReaderGroup]:
    """Readers whose sources overlap, directly or through others, put together."""
    sets: list[tuple[set[str], list[str]]] = []
    for reader, sources in read.items():
        touching = [one for one in sets if one[0] & sources]
        merged = ({*sources}.union(*(one[0] for one in touching)), [name for one in touching for name in one[1]])
        merged[1].append(reader)
        sets = [one for one in sets if one not in touching] + [merged]
    groups: list[ReaderGroup] = []
    for together, readers in sets:
        if any(one.startswith(_INPUT) for one in together):
            continue
        widths = {_conv(modules[name]).in_channels for name in readers}
        made = tuple(sorted(name for name in together if name in modules))
        even = len(widths) == 1 and all(_outputs(modules[name]) in widths for name in made)
        complete = even and len(made) == len(together) and not together & outside
        for width in sorted(widths):
            alike = tuple(name for name in readers if _conv(modules[name]).in_channels == width)
            groups.append(ReaderGroup(alike, made, width, complete))
    return groups


def _conv(module: nn.Module) -> nn.Conv2d:
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"{type(module).__name__} is no Conv2d")
    return module


def _outputs(module: nn.Module) -> int:
    return module.get_parameter("weight").shape[0]
