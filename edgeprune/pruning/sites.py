"""Where a network can be pruned, read from its graph. Start with `find_sites`.

A layer can be pruned if something behind it mixes its channels again. The classifier, and every other layer whose
channels reach the output as they are, cannot: an output would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError
from edgeprune.user_code import untraceable

MIXING_FUNCTIONS = (
    functional.linear,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


@dataclass(frozen=True)
class Site:
    """A layer whose filters may go, and the batch-norm that is its only reader, if there is one."""

    layer: str
    batchnorm: str | None


def find_sites(model: nn.Module) -> list[Site]:
    """Conv2d and Linear layers that may be pruned, in the order of the forward pass.

    Depthwise convolutions are left out: each of their filters belongs to the channel before it.

    Raises:
        TraceError: torch.fx cannot follow the model.
        ModelError: There is nothing to prune.
    """
    graph = trace(model)
    modules = dict(model.named_modules())
    reaching = _layers_that_reach_the_output(graph, modules)
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    sites = [
        Site(name, _only_reader_batchnorm(nodes, calls, modules))
        for name, nodes in calls.items()
        if name not in reaching and _is_prunable(modules[name])
    ]
    if not sites:
        raise ModelError(
            f"{type(model).__name__} has no layer to prune",
            hint="it takes a Conv2d or Linear module with another layer behind it",
        )
    return sites


def trace(model: nn.Module) -> fx.Graph:
    """The graph of the model's forward, by torch.fx; the model is not run and not changed."""
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # anything may come from the model's own forward, run on symbols
        raise untraceable(model, error) from error


def _is_prunable(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv2d) and not _is_depthwise(module)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups == module.in_channels > 1


def _layers_that_reach_the_output(graph: fx.Graph, modules: dict[str, nn.Module]) -> set[str]:
    """Names of mixing layers from which a way leads to the output past no other mixing layer."""
    found: set[str] = set()
    seen: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        for source in node.all_input_nodes:
            if source in seen:
                continue
            seen.add(source)
            if source.op == "call_module" and isinstance(modules[str(source.target)], _ConvNd | nn.Linear):
                found.add(str(source.target))
                if not _is_depthwise(modules[str(source.target)]):
                    continue
            elif source.op == "call_function" and source.target in MIXING_FUNCTIONS:
                continue
            waiting.append(source)
    return found


def _only_reader_batchnorm(
    nodes: list[fx.Node], calls: dict[str, list[fx.Node]], modules: dict[str, nn.Module]
) -> str | None:
    if len(nodes) != 1 or len(nodes[0].users) != 1:
        return None
    reader = next(iter(nodes[0].users))
    name = str(reader.target)
    if reader.op != "call_module" or len(calls[name]) != 1:
        return None
    module = modules[name]
    return name if isinstance(module, _BatchNorm) and module.affine else None
