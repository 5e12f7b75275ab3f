"""The stages that make what is measured: train, prune, build a network's files, compile.

Start with `prepare`, which a preparing process calls with one `Task`. Each stage keeps its result in the cache under
a hash of everything that made it, so `prepare` is cheap for what was made before. Frameworks are imported inside the
stages that need them: asking for something that is in the cache loads none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import compiling
from edgeprune.errors import ModelError
from edgeprune.exporting import PARITY_TOLERANCE
from edgeprune.matrix.cache import Cache, fingerprint, key, versions
from edgeprune.matrix.cells import Recipe
from edgeprune.matrix.sources import (
    WEIGHTS_FILE,
    dataset_of,
    dense_ingredients,
    first_images,
    fresh_model,
    load_weights,
    weights_ingredients,
)
from edgeprune.matrix.tasks import NetworkJob, Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.datasets import Dataset

Progress = Callable[[str, float], None]

NETWORK_FILE = "network.json"
INPUT_FILE = "input.bin"
REFERENCE_FILE = "reference.npy"
ONNX_FILE = "model.onnx"
CALIBRATION_IMAGES = 128
_MASKS_FILE = "masks.safetensors"


def prepare(cache: Cache, task: Task, progress: Progress) -> Path:
    """Carry out one task, or take its result from the cache; returns the artifact's folder.

    Raises:
        EdgepruneError: the stage failed; the message says which network and why.
    """
    stages = {
        "dense": _dense, "recipe": _recipe, "network": _network, "quantised": _quantised, "artifact": _artifact,
    }  # fmt: skip
    return stages[task.stage](cache, task, progress)


# --- train and prune --------------------------------------------------------------------------------------------------


def _dense(cache: Cache, task: Task, progress: Progress) -> Path:
    job = task.job
    ingredients = dense_ingredients(job)

    def build(folder: Path) -> None:
        from edgeprune import training

        model, dataset = fresh_model(job), dataset_of(job)
        schedule = replace(training.FROM_SCRATCH, **job.train)
        keep = cache.unfinished("dense", ingredients) / "training.state"
        training.train(model, dataset, schedule, seed=job.seed, progress=_epochs(progress), keep=keep)
        _keep_weights(folder, model, _right(model, dataset))

    return cache.make("dense", ingredients, build)


def _recipe(cache: Cache, task: Task, progress: Progress) -> Path:
    job = task.job
    if job.recipe is None:
        raise ModelError(f"{job.model.label}: a dense network has no recipe")
    dense = _dense(cache, Task("dense", job.dense()), progress)
    ingredients = weights_ingredients(job)
    keep = cache.unfinished("recipe", ingredients)
    return cache.make("recipe", ingredients, partial(_prune, job, job.recipe, dense, keep, progress))


def _prune(job: NetworkJob, recipe: Recipe, dense: Path, keep: Path, progress: Progress, folder: Path) -> None:
    """Choose the filters, zero them, and fine-tune what is left with the masks held, unless no epochs are asked for."""
    from edgeprune import pruning, training

    model, dataset = load_weights(job, dense), dataset_of(job)
    masks = pruning.prune(
        model,
        first_images(dataset, 1),
        method=recipe.method,
        ratio=recipe.ratio,
        data=dataset,
        seed=recipe.seed,
        scope=recipe.scope,
        batchnorm=recipe.batchnorm,
        keep=keep,
        progress=_epochs(progress),
        **recipe.options,
    )
    masks.save(folder / _MASKS_FILE)
    masked = masks.apply(model)
    if job.finetune.get("epochs") != 0:
        schedule = replace(training.FINE_TUNE, **job.finetune)
        state = keep / "finetune.state"
        training.train(masked, dataset, schedule, seed=recipe.seed, masks=masks, progress=_epochs(progress), keep=state)
    _keep_weights(folder, masked, _right(masked, dataset))


def _right(model: nn.Module, dataset: Dataset) -> float:
    from edgeprune import training

    return training.accuracy(model, dataset.test, reads_files=dataset.reads_files)


def _keep_weights(folder: Path, model: nn.Module, accuracy: float) -> None:
    from edgeprune import training

    training.save_checkpoint(folder / WEIGHTS_FILE, model, {"accuracy": accuracy})


# --- a network's files ------------------------------------------------------------------------------------------------


def _network(cache: Cache, task: Task, progress: Progress) -> Path:
    job = task.job
    origin = prepare(cache, job.origin(), progress)
    ingredients = {
        "weights": weights_ingredients(job),
        "variant": job.variant,
        "batch": task.batch,
        "code": fingerprint("shrinking", "counting", "exporting"),
        "versions": versions("torch", "onnx", "onnxscript", "onnxruntime", "fvcore"),
    }
    if job.shrink:
        ingredients["shrink"] = dict(job.shrink)
    made_from = key(ingredients)

    def build(folder: Path) -> None:
        progress("building", 0.0)
        _build_network(folder, job, origin, task.batch, made_from)

    return cache.make("network", ingredients, build)


def _build_network(folder: Path, job: NetworkJob, origin: Path, batch: int, made_from: str) -> None:
    """Write the ONNX file, the input and reference output of the parity gate, and everything that was counted."""
    import numpy as np
    import torch

    from edgeprune import counting, exporting

    source = load_weights(job, origin)
    dataset = dataset_of(job)
    example = first_images(dataset, batch)
    model, notes = _in_variant(job, source, example)
    # the masked network is the reference of both forms: the shrunk one must give its numbers on the device too;
    # but one whose constants were dropped on purpose is another network, and can only be held to its own numbers
    trusted = model if job.shrink.get("constants") == "drop" else source
    with torch.inference_mode():
        reference = trusted.eval()(example).numpy()
    onnx_path = exporting.export_onnx(model, example, folder / ONNX_FILE)
    parity = exporting.check_parity(trusted, onnx_path, example, PARITY_TOLERANCE)
    counts = counting.count(model, first_images(dataset, 1))
    filters, pruned = _filters(job, origin)
    example.numpy().tofile(folder / INPUT_FILE)
    np.save(folder / REFERENCE_FILE, reference)
    facts = {
        "params": counts.params,
        "nonzero_params": counts.nonzero_params,
        "macs": counts.macs,
        "uncounted_ops": counts.uncounted_ops,
        "accuracy": _right(model, dataset),
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

    shrunk = shrinking.shrink(source, example, **job.shrink)
    return shrunk.model, list(shrunk.report.notes)


def _filters(job: NetworkJob, origin: Path) -> tuple[int, int]:
    """How many filters the network has that could be pruned, and how many were; or columns and the like, of PSP."""
    if job.recipe is None:
        return 0, 0
    from edgeprune import pruning

    return pruning.Masks.load(origin / _MASKS_FILE).structures


# --- int8 -------------------------------------------------------------------------------------------------------------


def _quantised(cache: Cache, task: Task, progress: Progress) -> Path:
    network = _network(cache, Task("network", task.job, task.batch), progress)
    ingredients = {
        "network": json.loads((network / NETWORK_FILE).read_text())["made_from"],
        "images": CALIBRATION_IMAGES,
        "code": fingerprint("exporting", "matrix/int8.py"),
        "versions": versions("onnxruntime", "onnx"),
    }

    def build(folder: Path) -> None:
        from edgeprune.matrix import int8

        progress("quantising", 0.0)
        int8.build(folder, network / ONNX_FILE, network / INPUT_FILE, dataset_of(task.job))

    return cache.make("quantised", ingredients, build)


# --- compile ----------------------------------------------------------------------------------------------------------


def _artifact(cache: Cache, task: Task, progress: Progress) -> Path:
    network = _network(cache, Task("network", task.job, task.batch), progress)
    is_int8 = compiling.is_accelerator(task.runtime)
    source = _quantised(cache, task, progress) if is_int8 else network
    ingredients = {
        "network": json.loads((network / NETWORK_FILE).read_text())["made_from"],
        "runtime": task.runtime,
        "target": compiling.target_ingredients(task.runtime, task.target),
        "threads": task.threads,
        "code": fingerprint("compiling", "devices/native"),
        "versions": versions(*compiling.distributions(task.runtime)),
    }
    if is_int8:
        ingredients["quantised"] = source.name

    def build(folder: Path) -> None:
        progress("compiling", 0.0)
        if compiling.takes_module(task.runtime):
            _compile_module(folder, task, cache)
        else:
            compiling.compile_onnx(
                source / ONNX_FILE, folder, runtime=task.runtime, target=task.target, threads=task.threads
            )

    return cache.make("artifact", ingredients, build)


def _compile_module(folder: Path, task: Task, cache: Cache) -> None:
    """For a runtime that takes PyTorch's own form instead of ONNX."""
    job = task.job
    origin = prepare(cache, job.origin(), _silent)
    example = first_images(dataset_of(job), task.batch)
    model, _ = _in_variant(job, load_weights(job, origin), example)
    compiling.compile_module(model.eval(), example, folder, runtime=task.runtime, threads=task.threads)


# --- progress ---------------------------------------------------------------------------------------------------------


def _epochs(progress: Progress) -> Callable[[Any], None]:
    """Training's progress in the words of the matrix."""

    def told(step: Any) -> None:
        done = (step.epoch - 1 + step.batch / step.batches) / step.epochs
        accuracy = "" if step.validation_accuracy is None else f", {100 * step.validation_accuracy:.1f} % right"
        progress(f"epoch {step.epoch}/{step.epochs}{accuracy}", done)

    return told


def _silent(_text: str, _fraction: float) -> None:
    """Progress that nobody watches."""
