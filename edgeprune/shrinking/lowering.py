"""Layers that forward computes by functions of bare parameters, `F.conv2d(x, self.w, self.b)`, become such calls again.

Start with `lower`. The parameters keep the names that they have in the model, whatever was cut out of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from edgeprune.shrinking.copying import in_eval_mode
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS, TRANSPOSED
from edgeprune.shrinking.rewrite import install

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_SETTINGS: dict[type[nn.Module], tuple[Any, tuple[str, ...]]] = {
    **{kind: (getattr(F, kind.__name__.lower()), ("stride", "padding", "dilation", "groups")) for kind in CONVOLUTIONS},
    **{
        kind: (
            getattr(F, f"conv_transpose{kind.__name__[-2:].lower()}"),
            ("stride", "padding", "output_padding", "groups", "dilation"),
        )
        for kind in TRANSPOSED
    },
    **dict.fromkeys(_NORMS, (F.batch_norm, ("momentum", "eps"))),
    **dict.fromkeys(_INSTANCE_NORMS, (F.instance_norm, ("momentum", "eps"))),
    nn.Linear: (F.linear, ()),
    nn.GroupNorm: (F.group_norm, ("num_groups", "eps")),
    nn.LayerNorm: (F.layer_norm, ("normalized_shape", "eps")),
    nn.PReLU: (F.prelu, ()),
}
"""The function that a layer calls, and the layer's settings that it takes by the same names."""


def lower(shrunk: fx.GraphModule, functional: Mapping[str, Mapping[str, str]]) -> dict[str, nn.Module]:
    """Replace calls of layers by functional calls on parameters of the network.

    Args:
        shrunk: It is changed. What became of a layer that no one function computes, such as the groups of a convolution
            that are of unequal size, stays a module, under the name of the weight.
        functional: For each of those layers the names that its parameters and buffers shall have (`Traced`).

    Returns:
        The layers that were replaced, by their names.
    """
    names: dict[str, dict[str, str]] = {}
    lowered: dict[str, nn.Module] = {}
    for node in list(shrunk.graph.nodes) if functional else ():
        name = str(node.target)
        module = shrunk._modules.get(name) if node.op == "call_module" and name in functional else None
        if module is None:
            continue
        if type(module) not in _SETTINGS:
            node.target = functional[name]["weight"]
            install(shrunk, node.target, module)
            lowered[name] = module
            continue
        if name not in lowered:
            lowered[name] = module
            names[name] = _moved(module, functional[name], shrunk)
        function, settings = _SETTINGS[type(module)]
        with shrunk.graph.inserting_before(node):
            tensors = {role: shrunk.graph.get_attr(held) for role, held in names[name].items()}
        # the node stays the same one, since other passes refer to it
        node.op, node.target = "call_function", function
        node.kwargs = {key: getattr(module, key) for key in settings} | tensors
    for name in lowered:
        del shrunk._modules[name]
    if lowered:
        shrunk.recompile()
        in_eval_mode(shrunk)
    return lowered


def _moved(module: nn.Module, known: Mapping[str, str], shrunk: fx.GraphModule) -> dict[str, str]:
    """Put a layer's tensors under their own names into the network; returns these by role."""
    names: dict[str, str] = {}
    for role, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            continue
        held = known.get(role)
        if held is None:  # such as a bias that constants were folded into
            held = f"{known['weight']}_{role}"
        install(shrunk, held, tensor)
        names[role] = held
    return names
