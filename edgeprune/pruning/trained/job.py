"""What a method that trains is given, and how it trains and answers. Start with `Job`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgeprune import training
from edgeprune.datasets import Dataset
from edgeprune.errors import UserError
from edgeprune.pruning.choosing import BatchNormRule, Scope, masks_of
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import Site

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
_VALIDATION_EVERY = 10


@dataclass(frozen=True)
class Job:
    """One network to prune by training.

    Args:
        model: The method's own copy: it is trained in place.
        inputs: Example inputs.
        dataset: Its train and validation splits are used.
        ratio: As `prune` takes it.
        seed: Of the order of images and whatever the method draws.
        scope: Where the ratio is reached.
        batchnorm: Whether batch-norms behind pruned layers are masked too.
        schedule: How long and how fast one training of the method is.
        keep: A folder for the states of its trainings, so that it goes on where it was interrupted.
        progress: Told how far the training at hand is.
    """

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    dataset: Dataset
    ratio: float
    seed: int
    scope: Scope
    batchnorm: BatchNormRule
    schedule: training.Schedule
    keep: Path | None = None
    progress: Callable[[training.TrainingStep], None] | None = None

    def train(
        self,
        stage: str,
        *,
        hooks: training.Hooks | None = None,
        masks: Masks | None = None,
        epochs: int | None = None,
    ) -> training.TrainingResult:
        """Train the model in place; `stage` names this training among the method's others.

        Raises:
            StageError: As `training.train`.
        """
        return training.train(
            self.model,
            self.dataset,
            self.schedule if epochs is None else replace(self.schedule, epochs=epochs),
            seed=self.seed,
            masks=masks,
            progress=self.progress,
            hooks=hooks or training.Hooks(),
            keep=None if self.keep is None else self.keep / f"{stage}.state",
        )

    def norms(self, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """The Euclidean norm of each filter as it is now, float32 [C_out] for each layer."""
        weights = {name: self.model.get_parameter(f"{name}.weight").detach().cpu() for name in layers}
        return {name: weight.flatten(1).norm(dim=1) for name, weight in weights.items()}

    def filter_masks(
        self, sites: Sequence[Site], gone: Mapping[str, torch.Tensor], facts: Mapping[str, Any] | None = None
    ) -> Masks:
        """Masks of whole filters, with the model's values as they are now."""
        kept, batchnorms = masks_of(sites, gone, self.batchnorm)
        return Masks(kept, batchnorms, dict(facts or {}), self.model.state_dict())


def dataset_of(data: Dataset | Batches | None, method: str) -> Dataset:
    """The dataset itself; or one of the batches, every tenth image of them for validation.

    Raises:
        UserError: There is no data.
    """
    if isinstance(data, Dataset):
        return data
    batches = list(data or ())
    if not batches or sum(len(labels) for _, labels in batches) < _VALIDATION_EVERY:
        raise UserError(
            f"method {method} trains the network, and there is no data",
            hint="give data=edgeprune.datasets.load(...), or batches (images, labels) with ten images at least",
        )
    images = torch.cat([one for one, _ in batches])
    labels = torch.cat([one for _, one in batches])
    held_out = torch.arange(len(labels)) % _VALIDATION_EVERY == _VALIDATION_EVERY - 1
    channels, height, width = images.shape[1:]
    classes = int(labels.max()) + 1
    validation = TensorDataset(images[held_out], labels[held_out])
    return Dataset(
        name="batches",
        num_classes=classes,
        input_shape=(channels, height, width),
        classes=tuple(map(str, range(classes))),
        train=TensorDataset(images[~held_out], labels[~held_out]),
        validation=validation,
        test=validation,
    )
