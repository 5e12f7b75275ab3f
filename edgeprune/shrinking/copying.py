"""A private copy of the user's model, cheap enough to make one for every shrinking.

Start with `private_copy`. Most of a deep copy's time goes into weights that nobody changes, and into the general
machinery of `copy`: so parameters are shared with the original, and plain modules are copied attribute by attribute.
Buffers are copied, since forward may write them.
"""

from __future__ import annotations

import cmath
import copy
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from edgeprune.errors import ModelError, WeightsError

_Module = TypeVar("_Module", bound=nn.Module)

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size})
_TABLES = frozenset({dict, OrderedDict, set, list})
_NO_TENSORS = _ATOMS | _TABLES | {tuple}
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose weights are plain parameters, whatever pruned or parametrized them.

    It shares parameters with the model, so they must not be written; all else is its own.

    Raises:
        ModelError: The model is no module, is on the meta device, or can not be copied, or a weight is complex.
        WeightsError: A weight is NaN or infinite.
    """
    _require_network(model)
    modules = every_module(model)
    _require_real_numbers(model, modules)
    memo: dict[int, Any] = {}
    unshared: set[int] = set()
    for module in modules:
        # torch.nn.utils.prune writes into the parameter when its hook is removed
        if module._forward_pre_hooks:
            unshared.update(map(id, module._parameters.values()))
        for parameter in module._parameters.values():
            memo[id(parameter)] = parameter
        for value in vars(module).values():
            # computed weights, as prune leaves them as attributes, are no leaves of autograd and refuse deepcopy
            if type(value) not in _NO_TENSORS and isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    for key in unshared:
        memo.pop(key, None)
    try:
        twin = duplicate(model, memo)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} can not be copied: {error}", hint="make copy.deepcopy(model) work"
        ) from error
    twins = every_module(twin)
    for module in twins:
        if module._forward_pre_hooks:
            for name in _pruned_names(module):
                prune.remove(module, name)  # type: ignore[no-untyped-call]
        if "parametrizations" in module._modules:
            _settle_parametrizations(module)
    _refuse_nan(twin, twins)
    return in_eval_mode(twin)


def every_module(model: nn.Module) -> list[nn.Module]:
    """What model.modules() gives, in any order; torch's nested generators take ten times as long."""
    found = {id(model): model}
    waiting = [model]
    while waiting:
        for inner in waiting.pop()._modules.values():
            if inner is not None and id(inner) not in found:
                found[id(inner)] = inner
                waiting.append(inner)
    return list(found.values())


def in_eval_mode(model: _Module) -> _Module:
    """model.eval(), which takes a while through torch's attributes; a module's own `train` or `eval` is respected."""
    modules = every_module(model)
    kinds: set[type[nn.Module]] = set(map(type, modules))
    if any(kind.train is not nn.Module.train or kind.eval is not nn.Module.eval for kind in kinds):
        return model.eval()
    for module in modules:
        vars(module)["training"] = False
    return model


def duplicate(module: _Module, memo: dict[int, Any]) -> _Module:
    """What copy.deepcopy(module, memo) gives, in a fraction of its time where the module's class copies as usual."""
    known = memo.get(id(module))
    if known is not None:
        return known  # type: ignore[no-any-return]
    made_by: Any = type(module)
    if not _copies_as_usual(made_by):
        return copy.deepcopy(module, memo)
    twin: _Module = made_by.__new__(made_by)
    memo[id(module)] = twin
    state = dict(vars(module))
    for name, value in state.items():
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind in _TABLES and not value:
            state[name] = kind()
        elif name == "_modules":
            state[name] = {key: None if child is None else duplicate(child, memo) for key, child in value.items()}
        elif name == "_buffers" or name == "_parameters":
            state[name] = {key: _tensor(tensor, memo) for key, tensor in value.items()}
        else:
            state[name] = _attribute(value, memo)
    twin.__setstate__(state)  # type: ignore[no-untyped-call]
    return twin


def bare_twin(module: _Module) -> _Module:
    """A module of the same class and settings without hooks, that shares the tensors until they are replaced."""
    twin = type(module).__new__(type(module))
    state = dict(vars(module))
    for name in ("_parameters", "_buffers", "_modules"):
        state[name] = dict(state[name])
    for name in _HOOKS:
        state[name] = OrderedDict()
    vars(twin).update(state)
    return twin


@functools.lru_cache(maxsize=256)
def _copies_as_usual(kind: type[nn.Module]) -> bool:
    return (
        kind.__new__ is object.__new__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and getattr(kind, "__getstate__") is getattr(nn.Module, "__getstate__")  # noqa: B009 - typed from 3.11 on only
        and not hasattr(kind, "__deepcopy__")
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )


def _tensor(tensor: Tensor | None, memo: dict[int, Any]) -> Tensor | None:
    if tensor is None or id(tensor) in memo:
        return None if tensor is None else memo[id(tensor)]
    if type(tensor) is not Tensor or tensor.requires_grad:
        return copy.deepcopy(tensor, memo)
    memo[id(tensor)] = twin = tensor.clone()
    return twin


def _attribute(value: Any, memo: dict[int, Any]) -> Any:
    plain = type(value) is tuple and all(type(item) in _ATOMS for item in value)
    return value if plain else copy.deepcopy(value, memo)


def _pruned_names(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)]


def _settle_parametrizations(module: nn.Module) -> None:
    """Turn parametrized tensors into plain ones.

    Not by torch's `remove_parametrizations`: it takes the tensor off the class, which a copy shares with its original.
    """
    if not parametrize.is_parametrized(module):
        return
    groups: Any = module.parametrizations
    # a tensor that is computed of several, as weight_norm's is, was a parameter
    trained = {
        name: not hasattr(group, "original") or isinstance(group.original, nn.Parameter)
        for name, group in groups.items()
    }
    tensors = {name: getattr(module, name).detach().clone() for name in trained}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, tensor in tensors.items():
        if trained[name]:
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)


def _require_network(model: object) -> None:
    if not isinstance(model, nn.Module):
        hint = "give the torch.nn.Module itself"
        if isinstance(model, Mapping):
            hint = "give the network that this state dict was loaded into: model.load_state_dict(state)"
        raise ModelError(f"what is to be shrunk is of type {type(model).__name__}, not a torch.nn.Module", hint=hint)


def _require_real_numbers(model: nn.Module, modules: list[nn.Module]) -> None:
    weights = [weight for module in modules for weight in module._parameters.values() if weight is not None]
    buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
    if any(weight.is_complex() for weight in weights):
        names = [name for name, weight in model.named_parameters() if weight.is_complex()]
        raise ModelError(
            f"{names[0]} is complex, and constants are folded as real numbers",
            hint="hold the real and the imaginary part in two parameters",
        )
    if any(tensor.is_meta for tensor in (*weights, *buffers)):
        names = [name for name, one in (*model.named_parameters(), *model.named_buffers()) if one.is_meta]
        raise ModelError(
            f"{names[0]} is on the meta device, which holds no numbers",
            hint='load the masked weights first: model.to_empty(device="cpu").load_state_dict(state)',
        )


def _refuse_nan(model: nn.Module, modules: list[nn.Module]) -> None:
    tables = [table for module in modules for table in (module._parameters, module._buffers)]
    tensors = {id(tensor): tensor for table in tables for tensor in table.values() if tensor is not None}
    if not _suspect(tensors.values()):
        return
    bad = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    # a buffer may hold infinities on purpose, as an attention mask does
    bad += [name for name, buffer in model.named_buffers() if bool(torch.isnan(buffer).any())]
    if bad:
        raise WeightsError(
            f"{bad[0]} holds NaN or infinite values", hint="load a checkpoint whose training did not diverge"
        )


@torch.no_grad()
def _suspect(tensors: Iterable[Tensor]) -> bool:
    """Whether a tensor may hold NaN or infinities: sums tell, in one pass, and vectors are summed together."""
    vectors: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            vectors[tensor.dtype, tensor.device].append(tensor if tensor.dim() == 1 else tensor.sum().reshape(1))
    return not all(cmath.isfinite(torch.cat(group).sum().item()) for group in vectors.values())
