"""The stages that make what is measured: train, prune, build a network's files, compile.

Start with `prepare`, which a preparing process calls with one `Task`. Each stage keeps its result in the cache under
a hash of everything that made it, so `prepare` is cheap for what was made before. Frameworks are imported inside the
stages that need them: asking for something that is in the cache loads none.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune import compiling, datasets, models
from edgeprune.errors import ModelError
from edgeprune.matrix.cache import Cache, fingerprint, key, versions
from edgeprune.matrix.cells import Recipe
from edgeprune.matrix.spec import ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.datasets import Dataset

Progress = Callable[[str, float], None]
StageName = Literal["dense", "recipe", "network", "artifact"]

PARITY_TOLERANCE = 1e-4
OWN_INPUT_SHAPE = (3, 32, 32)  # of a user's own model whose matrix says no input_shape
NETWORK_FILE = "network.json"
INPUT_FILE = "input.bin"
REFERENCE_FILE = "reference.npy"
ONNX_FILE = "model.onnx"
_ACCURACY_FILE = "accuracy.json"
_WEIGHTS_FILE = "weights.safetensors"
_MASKS_FILE = "masks.safetensors"


@dataclass(frozen=True)
class NetworkJob:
    """Everything that decides a network's weights and form."""

    model: ModelSpec
    dataset: str
    seed: int
    variant: str
    recipe: Recipe | None
    train: Mapping[str, Any]
    finetune: Mapping[str, Any]

    def dense(self) -> NetworkJob:
        """The unpruned network this one comes from."""
        return NetworkJob(self.model, self.dataset, self.seed, "dense", None, self.train, {})

    def origin(self) -> Task:
        """The task that makes this network's weights; masked and shrunk share theirs."""
        return Task("dense", self.dense()) if self.recipe is None else Task("recipe", replace(self, variant="masked"))


@dataclass(frozen=True)
class Task:
    """One stage for one network; `runtime` and what follows matter to the stages `network` and `artifact`."""

    stage: StageName
    job: NetworkJob
    batch: int = 1
    runtime: str = ""
    target: str = ""
    threads: int = 1

    @property
    def title(self) -> str:
        """What a progress line calls this work."""
        job = self.job
        recipe = f" {job.recipe.label} {job.recipe.ratio:g}" if job.recipe else ""
        network = f"{job.model.label}{recipe} {job.variant}"
        words = {
            "dense": f"train {job.model.label}",
            "recipe": f"prune {job.model.label}{recipe}",
            "network": f"build {network}",
            "artifact": f"compile {network} for {self.runtime}",
        }
        return words[self.stage]


def needs(task: Task) -> Task | None:
    """The task whose result this one starts from."""
    job = task.job
    if task.stage == "artifact":
        return Task("network", job, task.batch)
    if task.stage == "network":
        return job.origin()
    if task.stage == "recipe":
        return Task("dense", job.dense())
    return None


def prepare(cache: Cache, task: Task, progress: Progress) -> Path:
    """Carry out one task, or take its result from the cache; returns the artifact's folder.

    Raises:
        EdgepruneError: the stage failed; the message says which network and why.
    """
    stage = {"dense": _dense, "recipe": _recipe, "network": _network, "artifact": _artifact}[task.stage]
    return stage(cache, task, progress)


# --- train and prune --------------------------------------------------------------------------------------------------


def _dense(cache: Cache, task: Task, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        from edgeprune import training

        model, dataset = _fresh_model(job), _dataset(job)
        schedule = replace(training.FROM_SCRATCH, **job.train)
        training.train(model, dataset, schedule, seed=job.seed, progress=_epochs(progress))
        _keep_weights(folder, model, training.accuracy(model, dataset.test))

    job = task.job
    return cache.make("dense", _dense_ingredients(job), build)


def _recipe(cache: Cache, task: Task, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        from edgeprune import pruning, training

        model, dataset = _load_weights(job, dense), _dataset(job)
        example = _first_images(dataset, 1)
        masks = pruning.prune(
            model, example, method=recipe.method, ratio=recipe.ratio, seed=recipe.seed,
            scope=recipe.scope, batchnorm=recipe.batchnorm,
        )  # fmt: skip
        masks.save(folder / _MASKS_FILE)
        masked = masks.apply(model)
        schedule = replace(training.FINE_TUNE, **job.finetune)
        training.train(masked, dataset, schedule, seed=recipe.seed, masks=masks, progress=_epochs(progress))
        _keep_weights(folder, masked, training.accuracy(masked, dataset.test))

    job = task.job
    recipe = _recipe_of(job)
    dense = _dense(cache, Task("dense", job.dense()), progress)
    return cache.make("recipe", _weights_ingredients(job), build)


# --- a network's files ------------------------------------------------------------------------------------------------


def _network(cache: Cache, task: Task, progress: Progress) -> Path:
    job = task.job
    origin = prepare(cache, job.origin(), progress)
    ingredients = {
        "weights": _weights_ingredients(job),
        "variant": job.variant,
        "batch": task.batch,
        "code": fingerprint("shrinking", "counting", "exporting"),
        "versions": versions("torch", "onnx", "onnxscript", "onnxruntime", "fvcore"),
    }
    made_from = key(ingredients)

    def build(folder: Path) -> None:
        progress("building", 0.0)
        _build_network(folder, job, origin, task.batch, made_from)

    return cache.make("network", ingredients, build)


def _build_network(folder: Path, job: NetworkJob, origin: Path, batch: int, made_from: str) -> None:
    """Write the ONNX file, the input and reference output of the parity gate, and everything that was counted."""
    import numpy as np
    import torch

    from edgeprune import counting, exporting, training

    source = _load_weights(job, origin)
    dataset = _dataset(job)
    example = _first_images(dataset, batch)
    model, notes = _in_variant(job, source, example)
    with torch.inference_mode():
        # the masked network is the reference of both forms: the shrunk one must give its numbers on the device too
        reference = source.eval()(example).numpy()
    onnx_path = exporting.export_onnx(model, example, folder / ONNX_FILE)
    parity = exporting.check_parity(source, onnx_path, example, PARITY_TOLERANCE)
    counts = counting.count(model, _first_images(dataset, 1))
    filters, pruned = _filters(job, origin)
    example.numpy().tofile(folder / INPUT_FILE)
    np.save(folder / REFERENCE_FILE, reference)
    facts = {
        "params": counts.params,
        "nonzero_params": counts.nonzero_params,
        "macs": counts.macs,
        "uncounted_ops": counts.uncounted_ops,
        "accuracy": training.accuracy(model, dataset.test),
        "filters": filters,
        "pruned_filters": pruned,
        "onnx_bytes": onnx_path.stat().st_size,
        "compressed_bytes": counting.compressed_bytes(onnx_path),
        "parity_rel": parity,
        "layers": [asdict(layer) for layer in counts.layers],
        "notes": notes,
        "made_from": made_from,
        "input_shape": list(example.shape),
    }
    (folder / NETWORK_FILE).write_text(json.dumps(facts))


def _in_variant(job: NetworkJob, source: nn.Module, example: torch.Tensor) -> tuple[nn.Module, list[str]]:
    if job.variant != "shrunk":
        return source, []
    from edgeprune import shrinking

    shrunk = shrinking.shrink(source, example)
    return shrunk.model, list(shrunk.report.notes)


def _filters(job: NetworkJob, origin: Path) -> tuple[int, int]:
    """How many filters the network has that could be pruned, and how many were."""
    if job.recipe is None:
        return 0, 0
    from edgeprune import pruning

    masks = pruning.Masks.load(origin / _MASKS_FILE)
    return masks.filters, masks.pruned_filters


# --- compile ----------------------------------------------------------------------------------------------------------


def _artifact(cache: Cache, task: Task, progress: Progress) -> Path:
    network = _network(cache, Task("network", task.job, task.batch), progress)
    ingredients = {
        "network": json.loads((network / NETWORK_FILE).read_text())["made_from"],
        "runtime": task.runtime,
        "target": compiling.target(task.target).ingredients(),
        "threads": task.threads,
        "code": fingerprint("compiling"),
        "versions": versions(*compiling.distributions(task.runtime)),
    }

    def build(folder: Path) -> None:
        progress("compiling", 0.0)
        if compiling.takes_module(task.runtime):
            _compile_module(folder, task, cache)
        else:
            compiling.compile_onnx(
                network / ONNX_FILE, folder, runtime=task.runtime, target=task.target, threads=task.threads
            )

    return cache.make("artifact", ingredients, build)


def _compile_module(folder: Path, task: Task, cache: Cache) -> None:
    """For a runtime that takes PyTorch's own form instead of ONNX."""
    job = task.job
    origin = prepare(cache, job.origin(), _silent)
    example = _first_images(_dataset(job), task.batch)
    model, _ = _in_variant(job, _load_weights(job, origin), example)
    compiling.compile_module(model.eval(), example, folder, runtime=task.runtime, threads=task.threads)


# --- what the stages share --------------------------------------------------------------------------------------------


def _silent(_text: str, _fraction: float) -> None:
    """Progress that nobody watches."""


def _recipe_of(job: NetworkJob) -> Recipe:
    if job.recipe is None:
        raise ModelError(f"{job.model.label}: a dense network has no recipe")
    return job.recipe


def _dense_ingredients(job: NetworkJob) -> dict[str, Any]:
    return {
        "model": job.model.model_dump(mode="json"),
        "own_source": _own_source(job.model.name) if job.model.is_users_own else None,
        "dataset": job.dataset,
        "seed": job.seed,
        "train": dict(job.train),
        "code": fingerprint("models", "datasets", "training"),
        "versions": versions("torch", "scikit-learn"),
    }


def _weights_ingredients(job: NetworkJob) -> dict[str, Any]:
    if job.recipe is None:
        return _dense_ingredients(job)
    return {
        "dense": _dense_ingredients(job.dense()),
        "recipe": asdict(job.recipe),
        "finetune": dict(job.finetune),
        "code": fingerprint("pruning"),
    }


def _own_source(name: str) -> str:
    """Hash of the sources a user's model may be made from: its package, or all modules beside a single file."""
    top = name.partition(":")[0].partition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    if found is None or found.origin is None:
        return ""
    origin = Path(found.origin)
    sources = origin.parent.rglob("*.py") if found.submodule_search_locations else origin.parent.glob("*.py")
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _input_shape(model: ModelSpec) -> tuple[int, int, int]:
    if model.input_shape is not None:
        return model.input_shape
    return OWN_INPUT_SHAPE if model.is_users_own else models.entry(model.name).input_shape


def _dataset(job: NetworkJob) -> Dataset:
    return datasets.load(job.dataset, _input_shape(job.model))


def _fresh_model(job: NetworkJob) -> nn.Module:
    options: dict[str, Any] = dict(job.model.options)
    if job.model.is_users_own:
        return models.load(job.model.name, seed=job.seed, **options)
    dataset = _dataset(job)
    return models.build(job.model.name, dataset.num_classes, dataset.input_shape[0], seed=job.seed, **options)


def _keep_weights(folder: Path, model: nn.Module, accuracy: float) -> None:
    from edgeprune import training

    training.save_checkpoint(folder / _WEIGHTS_FILE, model, {"accuracy": accuracy})
    (folder / _ACCURACY_FILE).write_text(json.dumps({"accuracy": accuracy}))


def _load_weights(job: NetworkJob, origin: Path) -> nn.Module:
    from edgeprune import training

    model = _fresh_model(job)
    training.load_weights(model, origin / _WEIGHTS_FILE)
    return model


def _first_images(dataset: Dataset, batch: int) -> torch.Tensor:
    import torch

    return torch.stack([dataset.test[number][0] for number in range(batch)])


def _epochs(progress: Progress) -> Callable[[Any], None]:
    """Training's progress in the words of the matrix."""

    def told(step: Any) -> None:
        done = (step.epoch - 1 + step.batch / step.batches) / step.epochs
        accuracy = "" if step.validation_accuracy is None else f", {100 * step.validation_accuracy:.1f} % right"
        progress(f"epoch {step.epoch}/{step.epochs}{accuracy}", done)

    return told
