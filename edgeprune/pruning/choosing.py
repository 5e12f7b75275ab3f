"""From scores to masks: how many filters go, and which. Start with `choose`.

Criteria score once (`select.py`), methods that train score as often as they like (`trained/`): both choose here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from edgeprune.errors import UserError
from edgeprune.pruning.sites import Site

Scope = Literal["local", "global"]
BatchNormRule = Literal["mask", "keep"]
Ratio = float | Mapping[str, float]
"""Of all layers alike, or of each layer that is named; the others stay whole."""


def choose(
    scores: Mapping[str, torch.Tensor], ratio: Ratio, scope: Scope, *, normalise: bool = True
) -> dict[str, torch.Tensor]:
    """The filters that go, lowest scores first: bool [C_out] for each layer, True for those that go.

    At least one filter of each layer stays; of equal scores the filter that comes first goes first.
    Over all layers, scores are divided by their layer's mean score unless `normalise` is off: then they are compared
    as they are.

    Raises:
        UserError: ratios of single layers where all are compared, or one that empties its layer.

    >>> choose({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([9.0, 8.0])}, 0.5, "local")["b"]
    tensor([False,  True])
    """
    if scope == "local":
        return _local(scores, ratio)
    if isinstance(ratio, Mapping):
        raise UserError(
            "a ratio for each layer leaves nothing to choose between layers",
            hint="take scope local, or one ratio for all layers",
        )
    return _global(scores, ratio, normalise)


def counts(filters: Mapping[str, int], ratio: Ratio) -> dict[str, int]:
    """How many of each layer's filters go. Of one ratio for all, at least one filter of each layer stays.

    Raises:
        UserError: the ratio that is given for a layer would leave it empty.

    >>> counts({"a": 4, "b": 2}, 0.9), counts({"a": 4, "b": 2}, {"a": 0.5})
    ({'a': 3, 'b': 1}, {'a': 2, 'b': 0})
    """
    if not isinstance(ratio, Mapping):
        return {layer: min(_wanted(ratio, width), width - 1) for layer, width in filters.items()}
    for layer, one in ratio.items():
        if layer in filters and _wanted(one, filters[layer]) >= filters[layer]:
            width = filters[layer]
            raise UserError(
                f"ratio {one} would leave none of the {width} filters of layer {layer}",
                hint=f"at most {(width - 1) / width:.4g} there, or leave the layer out and it stays whole",
            )
    return {layer: _wanted(ratio.get(layer, 0.0), width) for layer, width in filters.items()}


def masks_of(
    sites: Sequence[Site], gone: Mapping[str, torch.Tensor], batchnorm: BatchNormRule
) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """What is kept of layers and of the batch-norms behind them, and the names of those batch-norms."""
    kept: dict[str, torch.Tensor] = {}
    batchnorms: set[str] = set()
    for site in sites:
        kept[site.layer] = ~gone[site.layer]
        if batchnorm == "mask" and site.batchnorm is not None:
            kept[site.batchnorm] = ~gone[site.layer]
            batchnorms.add(site.batchnorm)
    return kept, frozenset(batchnorms)


def _wanted(ratio: float, filters: int) -> int:
    """Filters to remove of so many: the nearest whole number, halves up."""
    # a decimal such as 0.35 times 10 may fall a hair under its half
    return math.floor(ratio * filters + 0.5 + 1e-9)


def _local(scores: Mapping[str, torch.Tensor], ratio: Ratio) -> dict[str, torch.Tensor]:
    gone = {}
    for name, count in counts({name: len(values) for name, values in scores.items()}, ratio).items():
        gone[name] = torch.zeros(len(scores[name]), dtype=torch.bool)
        gone[name][torch.argsort(scores[name], stable=True)[:count]] = True
    return gone


def _global(scores: Mapping[str, torch.Tensor], ratio: float, normalise: bool) -> dict[str, torch.Tensor]:
    names = list(scores)
    gone = {name: torch.zeros(len(values), dtype=torch.bool) for name, values in scores.items()}
    means = {name: float(values.mean()) if normalise else 1.0 for name, values in scores.items()}
    normalised = torch.cat([scores[name] / means[name] if means[name] > 0 else scores[name] for name in names])
    places = [(name, index) for name in names for index in range(len(scores[name]))]
    left = _wanted(ratio, len(places))
    staying = {name: len(values) for name, values in scores.items()}
    for place in torch.argsort(normalised, stable=True).tolist():
        name, index = places[place]
        if left > 0 and staying[name] > 1:
            gone[name][index] = True
            staying[name] -= 1
            left -= 1
    return gone
