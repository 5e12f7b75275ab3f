"""Masks: which filters of which layers are kept, or which weights. Start with `Masks.apply`.

A masked filter has all its weights and its bias at zero; shapes stay. A batch-norm that follows a pruned layer may
have an entry of its own: its scale and shift are zeroed with the filter's, so that the channel is zero behind it too.
A mask of the weight's own shape zeroes single weights and leaves the bias; a filter counts as pruned if all of it is.
Methods that train, or mend what is left, bring new values of parameters along; `apply` puts them in before it masks.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError, UserError
from edgeprune.storage import write_whole

FACTS_KEY = "edgeprune"
_REPLACED = "replaced/"


@dataclass(frozen=True)
class Masks(Mapping[str, torch.Tensor]):
    """A frozen mapping from a layer's name to bool [C_out]: True for filters that are kept.

    Masks of unstructured methods are bool of the weight's shape instead: True for weights that are kept.

    Args:
        kept: The masks.
        batchnorms: Those of the names that are batch-norms; their entries follow a layer's and count no filters.
        facts: How the masks were made (method, ratio, seed ...), anything that JSON can hold.
        replaced: New values of parameters and buffers, by their name in the state dict: all of them if the method
            trained the network, some if it mended them, none if it only chose.

    >>> masks = Masks({"conv1": torch.tensor([True, False, True, True])})
    >>> masks.filters, masks.pruned_filters, masks.ratio
    (4, 1, 0.25)
    """

    kept: Mapping[str, torch.Tensor]
    batchnorms: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)
    replaced: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, mask in self.kept.items():
            if mask.dtype != torch.bool or mask.dim() == 0:
                raise UserError(
                    f"mask of {name} is {mask.dtype} {list(mask.shape)}",
                    hint="a mask is bool [C_out] or of the weight's shape, True for kept",
                )
        object.__setattr__(self, "kept", _frozen(self.kept))
        object.__setattr__(self, "replaced", _frozen(self.replaced))
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __getitem__(self, name: str) -> torch.Tensor:
        """The mask of a layer, bool [C_out] or of its weight's shape: the stored one, not to be written to."""
        return self.kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __eq__(self, other: object) -> bool:
        """Whether the same filters of the same layers are kept."""
        if not isinstance(other, Masks):
            return NotImplemented
        return (
            self.batchnorms == other.batchnorms
            and self.kept.keys() == other.kept.keys()
            and all(torch.equal(mask, other.kept[name]) for name, mask in self.kept.items())
        )

    def __hash__(self) -> int:
        masks = ((name, mask.shape, mask.numpy().tobytes()) for name, mask in sorted(self.kept.items()))
        return hash((self.batchnorms, tuple(masks)))

    def __reduce__(self) -> tuple[Any, ...]:
        # read-only views cannot be pickled; the plain dicts behind them can
        return (type(self), (dict(self.kept), self.batchnorms, dict(self.facts), dict(self.replaced)))

    @property
    def filters(self) -> int:
        """Filters of all layers with a mask."""
        return sum(len(mask) for name, mask in self.kept.items() if name not in self.batchnorms)

    @property
    def pruned_filters(self) -> int:
        """Filters that are masked, all of each."""
        return sum(int((~_filters(mask)).sum()) for name, mask in self.kept.items() if name not in self.batchnorms)

    @property
    def structures(self) -> tuple[int, int]:
        """How many structures there are and how many went: filters, or what else `facts` says that the method prunes.

        >>> Masks({}, facts={"structures": [{"structure": "column", "all": 72, "pruned": 36}]}).structures
        (72, 36)
        """
        told = self.facts.get("structures")
        if not told:
            return self.filters, self.pruned_filters
        return sum(int(one["all"]) for one in told), sum(int(one["pruned"]) for one in told)

    @property
    def ratio(self) -> float:
        """Pruned filters over filters, 0 to 1; 0 without any mask."""
        return self.pruned_filters / self.filters if self.filters else 0.0

    def apply(self, model: nn.Module) -> nn.Module:
        """A copy of the model with replaced values put in and masked filters zeroed; the model is not changed.

        Raises:
            ModelError: The model has no such layer or parameter, or it has another shape.

        >>> masks = Masks({"0": torch.tensor([True, False])})
        >>> int(masks.apply(nn.Sequential(nn.Linear(3, 2)))[0].weight[1].count_nonzero())
        0
        """
        masked = copy.deepcopy(model)
        state = masked.state_dict()
        for name, value in self.replaced.items():
            if name not in state or state[name].shape != value.shape:
                raise ModelError(
                    f"{type(model).__name__} has no {name!r} of shape {list(value.shape)} to replace",
                    hint="masks belong to the model that they were made for",
                )
            state[name].copy_(value)
        self.hold(masked)
        return masked

    def hold(self, model: nn.Module) -> None:
        """Zero the masked filters of a model in place, as after each training step.

        Raises:
            ModelError: As `apply`.
        """
        with torch.no_grad():
            for name, mask in self.kept.items():
                weight, bias = _parameters(model, name, mask)
                if mask.dim() > 1:
                    weight.mul_(mask.to(weight.device))
                    continue
                gone = (~mask).nonzero().flatten().to(weight.device)
                weight.index_fill_(0, gone, 0.0)
                if bias is not None:
                    bias.index_fill_(0, gone, 0.0)

    def save(self, path: Path) -> Path:
        """Write the masks and facts as safetensors; the same masks and facts give the same bytes.

        Raises:
            StorageError: The file cannot be written.
        """
        # one key, because safetensors keeps no order among several
        header = {"batchnorms": sorted(self.batchnorms), "facts": dict(self.facts)}
        tensors = dict(self.kept) | {_REPLACED + name: value.contiguous() for name, value in self.replaced.items()}
        return write_whole(Path(path), save(tensors, {FACTS_KEY: json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Read what `save` wrote; UserError if the file is missing, torn or holds no masks."""
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                header = json.loads((file.metadata() or {})[FACTS_KEY])
            kept = {name: one for name, one in tensors.items() if not name.startswith(_REPLACED)}
            replaced = {name.removeprefix(_REPLACED): one for name, one in tensors.items() if name not in kept}
            return cls(kept, frozenset(header["batchnorms"]), header["facts"], replaced)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not a masks file: {type(error).__name__}: {error}", hint="masks are written by Masks.save"
            ) from error


def _frozen(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    return MappingProxyType({name: one.detach().cpu().clone() for name, one in tensors.items()})


def _filters(mask: torch.Tensor) -> torch.Tensor:
    """bool [C_out]: filters of which anything is kept."""
    return mask if mask.dim() == 1 else mask.flatten(1).any(1)


def _parameters(model: nn.Module, name: str, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a layer that has as many filters as the mask."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise ModelError(
            f"mask for {name!r}: {type(model).__name__} has no such layer",
            hint="masks belong to the model that they were made for",
        ) from None
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    kinds = (nn.Conv2d, nn.Linear, _BatchNorm) if mask.dim() == 1 else (_ConvNd, nn.Linear)
    known = isinstance(layer, kinds) and isinstance(weight, torch.Tensor)
    if not known or not isinstance(weight, torch.Tensor):
        raise ModelError(
            f"mask for {name!r}: a {type(layer).__name__} has no filters to mask",
            hint="masks are for Conv2d, Linear and batch-norm layers with weights",
        )
    if mask.dim() > 1 and weight.shape != mask.shape:
        raise ModelError(
            f"mask for {name!r} is {list(mask.shape)}, the layer's weight {list(weight.shape)}",
            hint="masks belong to the model that they were made for",
        )
    if weight.shape[0] != len(mask):
        raise ModelError(
            f"mask for {name!r} has {len(mask)} entries, the layer {weight.shape[0]} filters",
            hint="masks belong to the model that they were made for",
        )
    return weight, bias
