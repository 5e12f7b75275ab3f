"""From scores to masks: how many filters go, and which. Start with `choose`.

Criteria score once (`select.py`), methods that train score as often as they like (`methods/`): both choose here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from edgeprune.pruning.sites import Site

Scope = Literal["local", "global"]
BatchNormRule = Literal["mask", "keep"]


def choose(
    scores: Mapping[str, torch.Tensor], ratio: float, scope: Scope, *, normalise: bool = True
) -> dict[str, torch.Tensor]:
    """The filters that go, lowest scores first: bool [C_out] for each layer, True for those that go.

    At least one filter of each layer stays; of equal scores the filter that comes first goes first.
    Over all layers, scores are divided by their layer's mean score unless `normalise` is off: then they are compared
    as they are.

    >>> choose({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([9.0, 8.0])}, 0.5, "local")["b"]
    tensor([False,  True])
    """
    return _local(scores, ratio) if scope == "local" else _global(scores, ratio, normalise)


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


def _local(scores: Mapping[str, torch.Tensor], ratio: float) -> dict[str, torch.Tensor]:
    gone = {}
    for name, values in scores.items():
        count = min(_wanted(ratio, len(values)), len(values) - 1)
        gone[name] = torch.zeros(len(values), dtype=torch.bool)
        gone[name][torch.argsort(values, stable=True)[:count]] = True
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
