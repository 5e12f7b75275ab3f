"""The layer of torch.nn that an operator with weights stands for. Start with `layer_of`.

A module of the user's own that calls `F.conv2d(x, self.weight, self.bias)` computes what nn.Conv2d computes; put under
the same name, the layer holds the same parameters under the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from edgeprune.shrinking.aten import arguments, operator_name

_CONVOLUTIONS: dict[str, type[nn.Module]] = {
    "conv1d.default": nn.Conv1d, "conv2d.default": nn.Conv2d, "conv3d.default": nn.Conv3d,
    "conv1d.padding": nn.Conv1d, "conv2d.padding": nn.Conv2d, "conv3d.padding": nn.Conv3d,
    "conv_transpose1d.default": nn.ConvTranspose1d, "conv_transpose2d.input": nn.ConvTranspose2d,
    "conv_transpose3d.input": nn.ConvTranspose3d,
}  # fmt: skip
_NORMS: dict[int, type[nn.Module]] = {
    2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d
}  # fmt: skip
_INSTANCE_NORMS: dict[int, Callable[..., nn.Module]] = {
    3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d
}  # fmt: skip
_SETTINGS = ("stride", "padding", "dilation", "output_padding")
_TENSORS = ("weight", "bias", "running_mean", "running_var")
_TRAINED = {"weight", "bias"}


@dataclass(frozen=True)
class NamedLayer:
    """A layer, the name that its parameters' keys begin with, and what it reads."""

    name: str
    module: nn.Module
    source: fx.Node


@dataclass(frozen=True)
class WeightedCall:
    """A call of an operator with weights: its aten name, its arguments by name, what it reads and that one's rank."""

    operator: str
    given: Mapping[str, Any]
    source: fx.Node
    rank: int


def layer_of(
    node: fx.Node, names: Mapping[fx.Node, str], tensor_of: Callable[[fx.Node], Tensor | None], model: nn.Module
) -> NamedLayer | None:
    """The layer that a node of an exported graph is, or None if it is none or its tensors are not named like one's."""
    operator = operator_name(node)
    source = node.args[0] if node.args else None
    if not operator or not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), Tensor):
        return None
    call = WeightedCall(operator, arguments(node), source, source.meta["val"].dim())
    return named_layer(call, names, tensor_of, model)


def named_layer(
    call: WeightedCall, names: Mapping[fx.Node, str], tensor_of: Callable[[fx.Node], Tensor | None], model: nn.Module
) -> NamedLayer | None:
    """The layer that a call is, or None.

    Args:
        call: The call.
        names: The names in the model of the parameters and buffers that nodes hold.
        tensor_of: Those parameters and buffers.
        model: What they are parts of.
    """
    owners: set[str] = set()
    tensors: dict[str, Tensor] = {}
    for role in _TENSORS:
        holder = call.given.get(role)
        if holder is None:
            continue
        owner, _, leaf = names.get(holder, "").rpartition(".")
        tensor = tensor_of(holder) if owner else None
        if leaf != role or tensor is None or (role in _TRAINED) != isinstance(tensor, nn.Parameter):
            return None
        owners.add(owner)
        tensors[role] = tensor
    if len(owners) != 1 or "weight" not in tensors or _depends_on_sizes(call):
        return None
    (name,) = owners
    module = _build(call, tensors)
    if module is None:
        return None
    for role, tensor in tensors.items():
        setattr(module, role, tensor)
    _count_batches(module, model.get_submodule(name))
    return NamedLayer(name, module.eval(), call.source)


def _depends_on_sizes(call: WeightedCall) -> bool:
    settings = [value for key, value in call.given.items() if key not in _TENSORS and value is not call.source]
    listed = [one for value in settings for one in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(one, fx.Node) for one in listed)


def _build(call: WeightedCall, tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """The layer with its settings; its tensors are set afterwards."""
    operator, given = call.operator, call.given
    weight, build = tensors["weight"], _CONVOLUTIONS.get(operator)
    options: dict[str, Any] = {"device": "meta"}
    has_bias = "bias" in tensors
    if build is not None:
        transposed = "output_padding" in given
        ins, outs = (0, 1) if transposed else (1, 0)
        groups = given["groups"]
        options |= {key: _tuple(given[key]) for key in _SETTINGS if key in given}
        inputs = weight.shape[ins] * (1 if transposed else groups)
        outputs = weight.shape[outs] * (groups if transposed else 1)
        convolution: Any = build
        kernel = tuple(weight.shape[2:])
        module: nn.Module = convolution(inputs, outputs, kernel, groups=groups, bias=has_bias, **options)
        return module
    if operator == "linear.default":
        return nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, **options)
    if operator == "_native_batch_norm_legit_no_training.default" and len(tensors) == len(_TENSORS):
        norm: Any = _NORMS[call.rank]
        made: nn.Module = norm(len(weight), eps=given["eps"], momentum=given["momentum"], **options)
        return made
    if operator == "instance_norm.default" and set(tensors) == _TRAINED and call.rank in _INSTANCE_NORMS:
        return _INSTANCE_NORMS[call.rank](len(weight), eps=given["eps"], affine=True, **options)
    if operator == "group_norm.default" and has_bias:
        return nn.GroupNorm(given["num_groups"], len(weight), eps=given["eps"], **options)
    if operator == "layer_norm.default":
        return nn.LayerNorm(given["normalized_shape"], eps=given["eps"], bias=has_bias, **options)
    if operator == "prelu.default":
        return nn.PReLU(weight.numel(), **options)
    return None


def _tuple(setting: Any) -> Any:
    return tuple(setting) if isinstance(setting, list) else setting


def _count_batches(module: nn.Module, original: nn.Module) -> None:
    """The counter of a batch normalisation, which no operator reads, is the model's own."""
    if "num_batches_tracked" in module._buffers:
        counter = getattr(original, "num_batches_tracked", None)
        module._buffers["num_batches_tracked"] = counter if isinstance(counter, Tensor) else None
