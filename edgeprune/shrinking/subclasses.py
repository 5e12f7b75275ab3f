"""The user's subclasses of torch's layers that compute what the layer itself computes. Start with `is_torch_layer`.

Such a layer is taken whole, as the class of torch.nn that it stands for, and leaves shrinking as that class: so what is
saved needs none of the user's code. A subclass that computes anything else is followed into its forward.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from edgeprune.shrinking.copying import bare_twin
from edgeprune.shrinking.operators.kernels import is_plain

_HARMLESS = frozenset({
    "__abstractmethods__", "__annotations__", "__constants__", "__dict__", "__doc__", "__firstlineno__", "__init__",
    "__module__", "__orig_bases__", "__parameters__", "__qualname__", "__repr__", "__static_attributes__",
    "__weakref__", "_abc_impl", "_get_name", "extra_repr", "reset_parameters",
})  # fmt: skip
"""What a subclass may define anew without computing anything else."""

_TENSORS = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})


def is_torch_layer(module: nn.Module) -> bool:
    """Whether a module of a subclass computes what its class of torch.nn computes, with tensors of that class alone."""
    made_by: Any = type(module)
    kind = _torch_class(made_by)
    if kind is None or module._modules or not is_plain(module) or not _methods(kind).isdisjoint(vars(module)):
        return False
    return _TENSORS.issuperset((*module._parameters, *module._buffers))


def as_torch_layer(module: nn.Module) -> nn.Module:
    """The same layer, with the same tensors, in its class of torch.nn; any other module as it is."""
    made_by: Any = type(module)
    kind = _torch_class(made_by)
    if kind is None or not is_torch_layer(module):
        return module
    twin = bare_twin(module)
    object.__setattr__(twin, "__class__", kind)
    known = _settings(kind)
    for name in [name for name in vars(twin) if name[0] != "_" and name not in known]:
        del vars(twin)[name]
    return twin


@functools.lru_cache(maxsize=256)
def _torch_class(kind: Any) -> Any:
    """The class of torch.nn that a subclass leaves as it is in all that it computes; None for any other class."""
    if kind.__module__.startswith("torch."):
        return None
    found = next((base for base in kind.__mro__ if getattr(nn, base.__name__, None) is base), None)
    if found is None or found is nn.Module:
        return None
    own = [base for base in kind.__mro__ if base not in found.__mro__]
    for name, value in [item for base in own for item in vars(base).items()]:
        if isinstance(value, property) or (name not in _HARMLESS and hasattr(found, name)):
            return None
    return found


@functools.lru_cache(maxsize=256)
def _methods(kind: Any) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))


@functools.lru_cache(maxsize=256)
def _settings(kind: Any) -> frozenset[str]:
    """The attributes of a layer of torch.nn: what its classes declare, and what its constructors take."""
    names = {"training"}
    for base in kind.__mro__:
        constructor: Any = vars(base).get("__init__")
        names |= set(getattr(base, "__constants__", ())) | set(vars(base).get("__annotations__", ()))
        names |= set(constructor.__code__.co_varnames) if hasattr(constructor, "__code__") else set()
    return frozenset(names)
