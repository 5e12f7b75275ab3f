"""Which methods prune by training, known without loading torch.

A method is one file with a function `prune(job, *, option, ...)` that returns Masks with the trained values of the
network. A new one is its file and one entry in `_entries`, which holds its options and their defaults. `job.py` has
what a method is given; `run.py` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Option = str | int | float | bool | None


@dataclass(frozen=True)
class MethodEntry:
    """What is known of a method before it is used.

    Args:
        name: As in a matrix.
        summary: One line for lists; how `ratio` is meant if it is not the share of filters.
        paper: Where it comes from, and where it departs from that.
        structures: What it removes.
        scope: Where the ratio is reached unless one is asked for: in every layer, or over all of them.
        options: Names and defaults of its own options; all also take those of training (`SCHEDULE_OPTIONS`).
        held_by: The file of tests/unit that holds it to its paper.
    """

    name: str
    summary: str
    paper: str
    structures: tuple[str, ...] = ("filter",)
    scope: Literal["local", "global"] = "local"
    options: Mapping[str, Option] = field(default_factory=dict)
    held_by: str = "test_pruning_regularisers.py"

    @property
    def kind(self) -> str:
        """How it prunes, in lists."""
        return "train"

    @property
    def module(self) -> str:
        """The module with its `prune`."""
        return f"edgeprune.pruning.trained.{self.name}"


SCHEDULE_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "epochs": 10,
        "batch_size": 64,
        "peak_rate": 0.05,
        "warmup": 0.2,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "shift": 2,
    }
)
"""What every method's training takes, as `edgeprune.training.Schedule` names it."""


def _entries() -> Mapping[str, MethodEntry]:
    entries = [
        MethodEntry(
            "iterative",
            "prune by any criterion in linear rounds, retrain after each; rewind: back to the weights of that epoch",
            "Han et al. 2015, Learning both weights and connections; Frankle et al. 2020 (rewinding)",
            options={"criterion": "l1", "rounds": 3, "rewind": -1},
        ),
        MethodEntry(
            "slimming",
            "smooth-L1 on batch-norm scales while training; lowest scales go, in linear rounds",
            "Liu et al. 2017, Network slimming, as in Tessier et al. 2022, section 4.1",
            scope="global",
            options={"penalty": 1e-5, "beta": 1.0, "rounds": 3, "retrain_epochs": 3},
        ),
        MethodEntry(
            "sfp",
            "after each epoch the filters of smallest norm are zeroed, and may grow again",
            "He et al. 2018, Soft filter pruning, algorithm 1",
            options={"norm": 2.0},
        ),
        MethodEntry(
            "psp",
            "trained structure parameters with a threshold; ratio: share of structures of inner convolutions",
            "Schindler et al., Parameterized structured pruning, equations 2-7",
            structures=("column", "channel", "shape", "filter", "layer", "layer+channel"),
            scope="global",
            options={
                "structure": "column",
                "regulariser": "decay",
                "strength": 1e-4,
                "threshold": None,
                "initial": "gaussian",
                "gradient": "chain",
            },
            held_by="test_pruning_psp.py",
        ),
        MethodEntry(
            "ssl",
            "group lasso over filters and over channels; filters of smallest norm go",
            "Wen et al. 2016, Structured sparsity learning, equation 4",
            options={"by_filter": 1e-3, "by_channel": 1e-3},
        ),
        MethodEntry(
            "lobster",
            "weights that the loss does not feel are shrunk, then cut; unstructured: the ratio is of weights",
            "Tartaglione et al. 2021, LOBSTER; round-trip journey, equation 1",
            structures=("weight",),
            scope="global",
            options={"strength": 1e-4, "tolerance": 0.05, "fill": True},
        ),
        MethodEntry(
            "serene",
            "neurons that the output does not feel are shrunk, then cut as far as the validation loss lets them",
            "Tartaglione et al. 2022, SeReNe; round-trip journey, equation 2",
            options={"strength": 1e-4, "tolerance": 0.05, "images": 64, "fill": True},
        ),
        MethodEntry(
            "sss",
            "gates before filters, closed by accelerated proximal gradient",
            "Huang and Wang 2018, Sparse structure selection, equations 9-11",
            scope="global",
            options={"strength": 0.01, "gate_momentum": 0.9, "fill": True},
            held_by="test_pruning_gates.py",
        ),
        MethodEntry(
            "spp",
            "filters are masked by chance, with a probability that grows with the rank of their norm",
            "Wang et al. 2018, Structured probabilistic pruning, section 3.2; filters instead of columns",
            options={"largest": 0.05, "bend": 0.25, "every": 1},
            held_by="test_pruning_gates.py",
        ),
        MethodEntry(
            "learned",
            "a small model at each convolution predicts the mask of its input; ratio: share of input channels",
            "Learned pruning models (thesis), chapter 4, equation 4.3",
            structures=("channel",),
            scope="global",
            options={"retrain_epochs": 10, "fill": True},
            held_by="test_pruning_gates.py",
        ),
        MethodEntry(
            "neq",
            "removes nothing (ratio 0): gradients of neurons at equilibrium are skipped, and the work saved is told",
            "Bragagnolo et al. 2022, NEq; round-trip journey, equation 3",
            structures=(),
            options={"memory": 0.5, "epsilon": 1e-3, "images": 64},
            held_by="test_pruning_gates.py",
        ),
    ]
    return MappingProxyType({one.name: one for one in entries})


ENTRIES = _entries()
