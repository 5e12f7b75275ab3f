"""The layer of torch.nn that an operator with weights stands for. Start with `layer_of`.

A module of the user's own that calls `F.conv2d(x, self.weight, self.bias)` computes what nn.Conv2d computes; put under
the same name, the layer holds the same parameters under the same keys. Parameters of other names, such as `self.w`, are
those of a layer for as long as the network is analysed; `lowering` makes functional calls of it again.
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
    """A layer, what it reads, and where it stands.

    Attributes:
        name: What its parameters' keys begin with, or a name that the model does not have.
        tensors: The names in the model of its parameters and buffers, by their names in the layer.
        bare: These are not the names that they would have in a layer of this name.
    """

    name: str
    module: nn.Module
    source: fx.Node
    tensors: Mapping[str, str]
    bare: bool


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
    held: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for role in _TENSORS:
        holder = call.given.get(role)
        if holder is None:
            continue
        tensor = tensor_of(holder) if holder in names else None
        if tensor is None or (role in _TRAINED) != isinstance(tensor, nn.Parameter):
            return None
        held[role], tensors[role] = names[holder], tensor
    if "weight" not in tensors or _depends_on_sizes(call):
        return None
    module = _build(call, tensors)
    if module is None:
        return None
    for role, tensor in tensors.items():
        setattr(module, role, tensor)
    owner = _owner(held, model)
    _count_batches(module, None if owner is None else model.get_submodule(owner))
    name = _new_name(held["weight"], module, model) if owner is None else owner
    return NamedLayer(name, module.eval(), call.source, held, bare=owner is None)


def _owner(held: Mapping[str, str], model: nn.Module) -> str | None:
    """The module in the model that holds these tensors under a layer's names, and no others; None if there is none."""
    owner = held["weight"].rpartition(".")[0]
    if not owner or any(name != f"{owner}.{role}" for role, name in held.items()):
        return None
    module = model.get_submodule(owner)
    own = {
        key for table in (module._parameters, module._buffers) for key, tensor in table.items() if tensor is not None
    }
    return owner if own - {"num_batches_tracked"} == set(held) else None


def _new_name(weight: str, module: nn.Module, model: nn.Module) -> str:
    name = f"{weight.replace('.', '_')}_{type(module).__name__.lower()}"
    while hasattr(model, name):
        name += "_"
    return name


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


def _count_batches(module: nn.Module, original: nn.Module | None) -> None:
    """The counter of a batch normalisation, which no operator reads, is the model's own."""
    if "num_batches_tracked" in module._buffers:
        counter = getattr(original, "num_batches_tracked", None)
        module._buffers["num_batches_tracked"] = counter if isinstance(counter, Tensor) else None
