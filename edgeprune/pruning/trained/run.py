"""Calling a method that trains: its options checked, its job made. Start with `run`."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgeprune import training
from edgeprune.datasets import Dataset
from edgeprune.pruning.choosing import BatchNormRule, Scope
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.trained import MethodEntry, Option
from edgeprune.pruning.trained.job import Batches, Job, dataset_of
from edgeprune.pruning.trained.options import sort_options


def run(
    entry: MethodEntry,
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    ratio: float,
    data: Dataset | Batches | None,
    seed: int,
    scope: Scope,
    batchnorm: BatchNormRule,
    options: Mapping[str, Option],
    keep: Path | None = None,
    progress: Callable[[training.TrainingStep], None] | None = None,
) -> Masks:
    """Masks and trained values by a method; the model itself is not changed.

    Raises:
        UnknownNameError: The method has no such option.
        UserError: An option of another type, or no data.
        StageError: The training came to NaN; the message says where.
    """
    own, schedule = sort_options(entry, options)
    job = Job(
        model=copy.deepcopy(model),
        inputs=inputs,
        dataset=dataset_of(data, entry.name),
        ratio=ratio,
        seed=seed,
        scope=scope,
        batchnorm=batchnorm,
        schedule=training.Schedule(**schedule),
        keep=keep,
        progress=progress,
    )
    made: Masks = importlib.import_module(entry.module).prune(job, **own)
    # what every method is asked for stands first, so that none has to repeat it
    asked = {"method": entry.name, "ratio": ratio, "seed": seed, "scope": scope, "batchnorm": batchnorm}
    return replace(made, facts=asked | {"options": dict(options)} | dict(made.facts))
