"""Modules in JSON: their class and what their constructor was given. Start with `blueprint` and `built`.

Only layers of torch.nn and the shrinker's own are written and read; weights lie in the state dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.shrinking import additions
from edgeprune.shrinking.constant_channels import ConstantChannels
from edgeprune.shrinking.kernel_columns import KernelColumns, ShiftedImage
from edgeprune.shrinking.notation import NeedsCodeError, read, written
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.ragged import GroupedParts
from edgeprune.shrinking.sizes import HeldSizes

_OWN = "edgeprune."
_ASSEMBLED: dict[str, type[nn.Module]] = {
    name: value for name, value in vars(additions).items() if isinstance(value, type) and issubclass(value, nn.Module)
} | {kind.__name__: kind for kind in (GroupedParts, ConstantChannels, KernelColumns, ShiftedImage)}
"""Modules that are made of tensors; they are put together from their attributes."""

_SIMPLE = (int, float, str, bool, tuple, list, type(None))

_Written = dict[str, Any]


def blueprint(name: str, module: nn.Module) -> _Written:
    """What `built` needs to make the module again, without its weights.

    Raises:
        NeedsCodeError: It is of the user's own class, hooked, or changed since it was made.
    """
    kind = type(module)
    if isinstance(module, nn.Module) and kind in _ASSEMBLED.values():
        return _parts(name, module)
    official = kind is getattr(nn, kind.__name__, None)
    if (not official and kind is not HeldSizes) or not is_plain(module):
        raise NeedsCodeError(f"{name} ({kind.__module__}.{kind.__qualname__})")
    prefix = "torch.nn." if official else _OWN
    plan = {"class": f"{prefix}{kind.__name__}", "options": {k: written(v) for k, v in _options(name, module).items()}}
    try:
        alike = _likeness(built(plan)) == _likeness(module)
    except Exception:
        alike = False
    if not alike:
        raise NeedsCodeError(f"{name} ({kind.__name__}), which its constructor alone does not make")
    return plan


def built(plan: Any) -> nn.Module:
    """The module of a blueprint, in eval mode, its weights not there yet.

    Raises:
        ModelError: It is no blueprint of a class that edgeprune knows.
    """
    name = str(plan["class"])
    short = name.removeprefix("torch.nn.").removeprefix(_OWN)
    if name == f"{_OWN}{short}" and short in _ASSEMBLED:
        return _assembled(_ASSEMBLED[short], plan)
    kind = HeldSizes if name == f"{_OWN}HeldSizes" else getattr(nn, short, None)
    known = isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith("torch.nn.modules.")
    if kind is not HeldSizes and not (known and name == f"torch.nn.{short}"):
        raise ModelError(
            f"the description holds a module of class {name[:60]!r}, which edgeprune does not build",
            hint="use a description that edgeprune wrote",
        )
    options = {key: read(value, {}) for key, value in plan["options"].items()}
    make: Any = kind
    if "device" in inspect.signature(make).parameters:
        options["device"] = "meta"
    try:
        module: nn.Module = make(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the description's options do not make a {short}: {error}", hint="use a description that edgeprune wrote"
        ) from error
    return module.eval()


def _options(name: str, module: nn.Module) -> dict[str, Any]:
    """The arguments of the constructor, which layers keep as attributes of the same names."""
    options: dict[str, Any] = {}
    for key in inspect.signature(type(module)).parameters.values():
        if key.kind in (key.VAR_POSITIONAL, key.VAR_KEYWORD) or key.name in ("device", "dtype") or key.name[0] == "_":
            continue
        value = getattr(module, key.name, key.default)
        if isinstance(module, nn.MultiheadAttention):
            value = {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}.get(
                key.name, value
            )
        elif key.name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value is key.empty:
            raise NeedsCodeError(f"{name} ({type(module).__name__})")
        options[key.name] = value
    return options


def _likeness(module: nn.Module) -> dict[str, Any]:
    """What tells two layers apart but for the numbers in them."""
    settings = {k: v for k, v in vars(module).items() if not k.startswith("_") and isinstance(v, _SIMPLE)}
    settings.pop("training", None)
    return settings | {f"{key}:": value.shape for key, value in module.state_dict().items()}


def _parts(name: str, module: nn.Module) -> _Written:
    settings = {k: written(v) for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    tensors = {**module._parameters, **module._buffers}
    return {
        "class": f"{_OWN}{type(module).__name__}",
        "settings": settings,
        "tensors": {key: _form(tensor) for key, tensor in tensors.items()},
        "modules": {
            key: None if child is None else blueprint(f"{name}.{key}", child) for key, child in module._modules.items()
        },
    }


def _form(tensor: Tensor | None) -> _Written | None:
    if tensor is None:
        return None
    return {"shape": list(tensor.shape), "trained": isinstance(tensor, nn.Parameter), "dtype": written(tensor.dtype)}


def _assembled(kind: type[nn.Module], plan: Mapping[str, Any]) -> nn.Module:
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for key, value in plan["settings"].items():
        if not key.isidentifier() or hasattr(module, key):
            raise ModelError(
                f"the description sets {key[:60]!r} of a {kind.__name__}", hint="use a description that edgeprune wrote"
            )
        setattr(module, key, read(value, {}))
    for key, form in plan["tensors"].items():
        tensor = None if form is None else torch.empty(form["shape"], dtype=read(form["dtype"], {}), device="meta")
        if form is not None and form["trained"]:
            module.register_parameter(key, None if tensor is None else nn.Parameter(tensor))
        else:
            module.register_buffer(key, tensor)
    for key, inner in plan["modules"].items():
        module.add_module(key, None if inner is None else built(inner))
    return module.eval()
