"""The criteria that can be named, as plain records: no torch is loaded for a list. `ENTRIES` is the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

_HERE = "edgeprune.pruning.criteria"


@dataclass(frozen=True)
class CriterionEntry:
    """What is known of a criterion before it is used.

    Args:
        name: As in a matrix.
        summary: One line for lists.
        paper: Where its formula comes from.
        function: "module:function"; without one it scores no filters, but masks single weights (`pruning/weights.py`).
        takes: What the function is called with: one layer; the whole network; or that and how many filters go, if it
            chooses by itself.
        looks_at_data: Whether it needs batches of images and labels.
        options: Its own options, and their defaults.
        held_by: The file of tests/unit that holds it to its paper.
    """

    name: str
    summary: str
    paper: str
    function: str | None
    takes: Literal["layer", "network", "counts"] = "layer"
    looks_at_data: bool = False
    options: Mapping[str, int | float] = field(default_factory=dict)
    held_by: str = "test_pruning_criteria.py"

    @property
    def kind(self) -> str:
        """How it goes about: in one shot, with or without looking at data, or weight by weight."""
        if self.function is None:
            return "unstructured"
        return "one-shot, from data" if self.looks_at_data else "one-shot"

    @property
    def structures(self) -> tuple[str, ...]:
        """What goes."""
        return ("weight",) if self.function is None else ("filter",)


_ALL = (
    CriterionEntry(
        "l1",
        "sum of absolute weights of a filter",
        "Li et al. 2017, Pruning filters for efficient ConvNets (PFEC), section 3.1",
        f"{_HERE}.l1:scores",
        held_by="test_pruning.py",
    ),
    CriterionEntry(
        "l2",
        "Euclidean norm of a filter",
        "He et al. 2018, Soft filter pruning, section 3.2, equation 2 with p = 2",
        f"{_HERE}.l2:scores",
        held_by="test_pruning.py",
    ),
    CriterionEntry(
        "fpgm",
        "distance of a filter to all others of its layer: those near the geometric median go",
        "He et al. 2019, Filter pruning via geometric median (FPGM), section 3.3",
        f"{_HERE}.fpgm:scores",
    ),
    CriterionEntry(
        "cop",
        "one less the correlation with other channels, by the weights that read them",
        "Wang et al. 2019, Correlation-based pruning (COP), section 3",
        f"{_HERE}.cop:scores",
        takes="network",
        options={"neighbours": 3},
    ),
    CriterionEntry(
        "bn",
        "absolute scale of the batch-norm behind a filter",
        "Liu et al. 2017, Network slimming, section 3",
        f"{_HERE}.batchnorm:scores",
    ),
    CriterionEntry(
        "taylor",
        "how the loss would change without a feature map, to first order",
        "Molchanov et al. 2017, Pruning CNNs for resource efficient inference, section 2.2, equation 8",
        f"{_HERE}.taylor:scores",
        takes="network",
        looks_at_data=True,
    ),
    CriterionEntry(
        "hrank",
        "mean rank of a filter's feature maps",
        "Lin et al. 2020, HRank, section 3.2",
        f"{_HERE}.hrank:scores",
        takes="network",
        looks_at_data=True,
    ),
    CriterionEntry(
        "nisp",
        "importance propagated back from the outputs through absolute weights",
        "Yu et al. 2018, Neuron importance score propagation (NISP), section 3",
        f"{_HERE}.nisp:scores",
        takes="network",
    ),
    CriterionEntry(
        "thinet",
        "greedy, by what the next layer's output loses; scales what stays by least squares",
        "Luo et al. 2017, ThiNet, section 3.2, equations 6 and 7",
        f"{_HERE}.thinet:choose",
        takes="counts",
        looks_at_data=True,
        options={"positions": 10},
        held_by="test_pruning_reconstruction.py",
    ),
    CriterionEntry(
        "channel-pruning",
        "LASSO on what channels add to the next layer's output, whose weights are then solved anew",
        "He et al. 2017, Channel pruning for accelerating very deep networks, section 3.1",
        f"{_HERE}.channel_pruning:choose",
        takes="counts",
        looks_at_data=True,
        options={"positions": 10},
        held_by="test_pruning_reconstruction.py",
    ),
    CriterionEntry(
        "dcp",
        "greedy, by what the next layer needs to give its output and to tell classes apart; solves it on the way",
        "Zhuang et al. 2018, Discrimination-aware channel pruning (DCP), section 3, algorithm 2; the classifier is "
        "fitted to sampled places, and the network is not trained with it first",
        f"{_HERE}.dcp:choose",
        takes="counts",
        looks_at_data=True,
        options={"positions": 4, "discrimination": 1.0, "steps": 5},
        held_by="test_pruning_reconstruction.py",
    ),
    CriterionEntry(
        "fma",
        "one less the correlation of a feature map with those that stay",
        "after Li et al. 2022, Feature map analysis-based dynamic CNN pruning (FMA); the formula is edgeprune's own",
        f"{_HERE}.fma:scores",
        takes="network",
        looks_at_data=True,
    ),
    CriterionEntry(
        "random",
        "a uniform random number, the baseline every criterion has to beat",
        "Mittal et al. 2018, Recovering from random pruning",
        f"{_HERE}.random:scores",
        held_by="test_pruning.py",
    ),
    CriterionEntry(
        "magnitude",
        "unstructured: weights below a factor times the standard deviation; the ratio is of weights",
        "Han et al. 2015, Learning both weights and connections, with the threshold of pruning_mini_project, I.A",
        None,
        held_by="test_pruning_magnitude.py",
    ),
)

ENTRIES: Mapping[str, CriterionEntry] = MappingProxyType({one.name: one for one in _ALL})
