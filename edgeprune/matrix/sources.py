"""What a network is made from: its model, its dataset, its weights, and the ingredients that stand in cache keys.

Start with `fresh_model`. Frameworks are imported inside the functions that need them: keys are made without.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import datasets, models, pruning
from edgeprune.matrix.cache import fingerprint, versions
from edgeprune.matrix.spec import DataSpec, ModelSpec
from edgeprune.matrix.tasks import NetworkJob

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.datasets import Dataset

OWN_INPUT_SHAPE = (3, 32, 32)  # of a user's own model whose matrix says no input_shape
WEIGHTS_FILE = "weights.safetensors"


def fresh_model(job: NetworkJob) -> nn.Module:
    """The model with its initial weights; a user's own is imported, which runs their code."""
    options: dict[str, Any] = dict(job.model.options)
    if job.model.is_users_own:
        return models.load(job.model.name, seed=job.seed, **options)
    dataset = dataset_of(job)
    return models.build(job.model.name, dataset.num_classes, dataset.input_shape[0], seed=job.seed, **options)


def load_weights(job: NetworkJob, origin: Path) -> nn.Module:
    """The model with the weights that a stage left in `origin`."""
    from edgeprune import training

    model = fresh_model(job)
    training.load_weights(model, origin / WEIGHTS_FILE)
    return model


def dataset_of(job: NetworkJob) -> Dataset:
    """The dataset in the shape that the model needs."""
    return datasets.load(job.dataset.name, _input_shape(job.model), folder=job.dataset.folder)


def first_images(dataset: Dataset, batch: int) -> torch.Tensor:
    """The first images of the test split, float32 [batch, C, H, W]."""
    import torch

    return torch.stack([dataset.test[number][0] for number in range(batch)])


def weights_ingredients(job: NetworkJob) -> dict[str, Any]:
    """Everything that decides a network's weights, pruned or not."""
    if job.recipe is None:
        return dense_ingredients(job)
    own = pruning.users_place(job.recipe.method)
    return {
        "dense": dense_ingredients(job.dense()),
        "recipe": {name: value for name, value in asdict(job.recipe).items() if name != "align"},  # of shrinking alone
        "own_criterion": _own_source(own) if own is not None else None,
        "finetune": dict(job.finetune),
        "code": fingerprint("pruning"),
    }


def dense_ingredients(job: NetworkJob) -> dict[str, Any]:
    """Everything that decides a trained network's weights."""
    return {
        "model": job.model.model_dump(mode="json", exclude={"data"}),
        "own_source": _own_source(job.model.name) if job.model.is_users_own else None,
        "dataset": job.dataset.label,
        "files": _files(job.dataset),
        "seed": job.seed,
        "train": dict(job.train),
        "code": fingerprint("models", "datasets", "training", "matrix/stages.py", "matrix/sources.py"),
        "versions": versions("torch", "scikit-learn"),
    }


def _files(data: DataSpec) -> str | None:
    """What tells one copy of a dataset's files from another, wherever it lies."""
    if not datasets.entry(data.name).needs_folder:
        return None
    return datasets.contents(datasets.require_folder(data.name, data.folder))


def _own_source(name: str) -> str:
    """Hash of the sources that a user's own may be made from: its package, or all modules beside a single file.

    Places count from the package or the file on: a project that was moved or copied has the same hash.
    """
    top = name.partition(":")[0].partition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    digest = hashlib.sha256()
    if found is not None:
        packages = [Path(folder) for folder in found.submodule_search_locations or ()]
        sources = [(source, folder) for folder in packages for source in folder.rglob("*.py")]
        if not packages and found.origin is not None:
            beside = Path(found.origin).parent
            sources = [(source, beside) for source in beside.glob("*.py")]
        for name, content in sorted(
            (source.relative_to(root).as_posix(), source.read_bytes()) for source, root in sources
        ):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _input_shape(model: ModelSpec) -> tuple[int, int, int]:
    if model.input_shape is not None:
        return model.input_shape
    return OWN_INPUT_SHAPE if model.is_users_own else models.entry(model.name).input_shape
