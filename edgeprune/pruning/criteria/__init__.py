"""Which criteria exist, known without loading torch.

A criterion is one file with a function `scores(layer, context)`: for a Conv2d or Linear it returns a float tensor
[C_out], higher for filters that matter more. A new one is its file and one line in `_entries`. `context.py` has
what a criterion may look at besides the layer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from edgeprune.errors import UnknownNameError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.pruning.criteria.context import ScoreContext

    Scores = Callable[[nn.Module, ScoreContext], torch.Tensor]


@dataclass(frozen=True)
class CriterionEntry:
    """What is known of a criterion before it is used: its name, one line for lists, its paper, "module:function".

    One without a function scores no filters: it masks single weights (`pruning/weights.py`).
    """

    name: str
    summary: str
    paper: str
    function: str | None


def _entries() -> Mapping[str, CriterionEntry]:
    here = "edgeprune.pruning.criteria"
    entries = [
        CriterionEntry(
            "l1",
            "sum of absolute weights of a filter",
            "Li et al. 2017, Pruning filters for efficient ConvNets (PFEC), section 3.1",
            f"{here}.l1:scores",
        ),
        CriterionEntry(
            "l2",
            "Euclidean norm of a filter",
            "He et al. 2018, Soft filter pruning, section 3.2, equation 2 with p = 2",
            f"{here}.l2:scores",
        ),
        CriterionEntry(
            "random",
            "a uniform random number, the baseline every criterion has to beat",
            "Mittal et al. 2018, Recovering from random pruning",
            f"{here}.random:scores",
        ),
        CriterionEntry(
            "magnitude",
            "unstructured: weights below a factor times the standard deviation; the ratio is of weights",
            "Han et al. 2015, Learning both weights and connections, with the threshold of pruning_mini_project, I.A",
            None,
        ),
    ]
    return MappingProxyType({one.name: one for one in entries})


_ENTRIES = _entries()


def methods() -> list[str]:
    """The criteria that can be named.

    >>> methods()
    ['l1', 'l2', 'random', 'magnitude']
    """
    return list(_ENTRIES)


def entry(name: str) -> CriterionEntry:
    """What is known of the criterion called `name`; UnknownNameError if there is none."""
    if name not in _ENTRIES:
        raise UnknownNameError("pruning method", name, _ENTRIES)
    return _ENTRIES[name]


def criterion(name: str) -> Scores:
    """The scoring function of a criterion; UnknownNameError if there is none, or if it scores no filters."""
    written = entry(name).function
    if written is None:
        raise UnknownNameError("criterion of filters", name, [one for one in _ENTRIES if _ENTRIES[one].function])
    module, _, function = written.partition(":")
    return cast("Scores", getattr(importlib.import_module(module), function))
