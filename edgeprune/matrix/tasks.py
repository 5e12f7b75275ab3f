"""What a preparing process is asked for: a network, and one stage of making it. Plain data; start with `Task`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgeprune import compiling
from edgeprune.matrix.cells import Recipe
from edgeprune.matrix.spec import DataSpec, ModelSpec, data_from_json

StageName = Literal["dense", "recipe", "network", "quantised", "artifact"]


@dataclass(frozen=True)
class NetworkJob:
    """Everything that decides a network's weights and form; `shrink` holds options of shrunk networks alone."""

    model: ModelSpec
    dataset: DataSpec
    seed: int
    variant: str
    recipe: Recipe | None
    train: Mapping[str, Any]
    finetune: Mapping[str, Any]
    shrink: Mapping[str, Any] = field(default_factory=dict)

    def dense(self) -> NetworkJob:
        """The unpruned network this one comes from."""
        return NetworkJob(self.model, self.dataset, self.seed, "dense", None, self.train, {})

    def origin(self) -> Task:
        """The task that makes this network's weights; masked and shrunk share theirs."""
        if self.recipe is None:
            return Task("dense", self.dense())
        return Task("recipe", replace(self, variant="masked", shrink={}, recipe=replace(self.recipe, align=None)))


@dataclass(frozen=True)
class Task:
    """One stage for one network; `runtime` and what follows matter to the stage `artifact` alone."""

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
        ratio = job.recipe.network_ratio if job.recipe else None
        recipe = (f" {job.recipe.label}" if job.recipe else "") + ("" if ratio is None else f" {ratio:g}")
        network = f"{job.model.label}{recipe} {job.variant}"
        place = "" if self.target in ("", "host") else f" on {self.target}"
        words = {
            "dense": f"train {job.model.label}",
            "recipe": f"prune {job.model.label}{recipe}",
            "network": f"build {network}",
            "quantised": f"quantise {network}",
            "artifact": f"compile {network} for {self.runtime}{place}",
        }
        return words[self.stage]


def needs(task: Task) -> Task | None:
    """The task whose result this one starts from."""
    job = task.job
    if task.stage == "artifact":
        is_int8 = compiling.is_accelerator(task.runtime)
        return Task("quantised" if is_int8 else "network", job, task.batch)
    if task.stage == "quantised":
        return Task("network", job, task.batch)
    if task.stage == "network":
        return job.origin()
    if task.stage == "recipe":
        return Task("dense", job.dense())
    return None


def task_to_json(task: Task) -> dict[str, Any]:
    """A task as plain data; `task_from_json` is its inverse."""
    job, recipe = task.job, task.job.recipe
    return {
        "stage": task.stage,
        "model": job.model.model_dump(mode="json"),
        "dataset": job.dataset.model_dump(mode="json"),
        "seed": job.seed,
        "variant": job.variant,
        "recipe": None if recipe is None else vars(recipe),
        "train": dict(job.train),
        "finetune": dict(job.finetune),
        "shrink": dict(job.shrink),
        "batch": task.batch,
        "runtime": task.runtime,
        "target": task.target,
        "threads": task.threads,
    }


def task_from_json(work: dict[str, Any]) -> Task:
    """The task that `task_to_json` wrote."""
    recipe = None if work["recipe"] is None else Recipe(**work["recipe"])
    job = NetworkJob(
        ModelSpec.model_validate(work["model"]),
        data_from_json(work["dataset"]),
        work["seed"],
        work["variant"],
        recipe,
        work["train"],
        work["finetune"],
        work["shrink"],
    )
    return Task(work["stage"], job, work["batch"], work["runtime"], work["target"], work["threads"])
