"""From a matrix to its cells: which networks there are, where each is measured, and what is measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from edgeprune import compiling, emulation, pruning, transport
from edgeprune.compiling import fpga
from edgeprune.matrix.spec import MatrixSpec, ModelSpec, PruneSpec
from edgeprune.schema import CellKey, NetworkKey
from edgeprune.transport import Device

UNKNOWN_TARGET = ""
"""The target of a device that nobody named one for, and that has never answered: its cells fail."""


@dataclass(frozen=True)
class Recipe:
    """How a network is pruned."""

    method: str
    scope: Literal["local", "global"]
    ratio: float | Mapping[str, float]
    seed: int
    batchnorm: Literal["mask", "keep"]
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    align: int | None = None

    @property
    def label(self) -> str:
        """The method's name in tables; what departs from the default is part of it."""
        parts = [self.method]
        if self.scope != pruning.default_scope(self.method):
            parts.append(self.scope)
        if self.batchnorm != "mask":
            parts.append(f"bn-{self.batchnorm}")
        details = [f"{key}={self.options[key]}" for key in sorted(self.options)]
        if self.align is not None:
            details.append(f"align={self.align}")
        if isinstance(self.ratio, Mapping):
            details += [f"{layer}:{self.ratio[layer]:g}" for layer in sorted(self.ratio)]
        return "-".join(parts) + (f"({','.join(details)})" if details else "")

    @property
    def network_ratio(self) -> float | None:
        """The ratio of the whole network; None where layers have their own, which are part of the label."""
        return None if isinstance(self.ratio, Mapping) else self.ratio


@dataclass(frozen=True)
class PlannedNetwork:
    """A network of the matrix: its key, and what it takes to make it. A dense one has no recipe."""

    key: NetworkKey
    model: ModelSpec
    recipe: Recipe | None


def networks(spec: MatrixSpec) -> list[PlannedNetwork]:
    """All networks, each once, in the order of the matrix; a dense one stands before those pruned from it."""
    planned: dict[NetworkKey, PlannedNetwork] = {}
    for model in spec.models:
        entries = [entry for entry in spec.prune if not entry.models or model.name in entry.models]
        recipes = [recipe for entry in entries for recipe in _recipes(entry)]
        dataset = spec.data_of(model).label
        seeds = [recipe.seed for recipe in recipes] or [0]
        if "dense" in spec.variants:
            for seed in seeds:
                key = NetworkKey(model=model.label, dataset=dataset, method="", seed=seed, variant="dense")
                planned.setdefault(key, PlannedNetwork(key, model, None))
        for recipe in recipes:
            for variant in spec.variants:
                if variant != "dense":
                    key = NetworkKey(
                        model=model.label,
                        dataset=dataset,
                        method=recipe.label,
                        pruning_ratio=recipe.network_ratio,
                        seed=recipe.seed,
                        variant=variant,
                    )
                    planned.setdefault(key, PlannedNetwork(key, model, recipe))
    return list(planned.values())


def cells(spec: MatrixSpec, targets: Mapping[str, str] | None = None) -> list[CellKey]:
    """All cells; those that are compared with each other stand together (see `groups`).

    On an emulated device instructions are counted, of programs on one thread: other runtimes have no cells there. On a
    simulated accelerator cycles are, of one image at a time, and its runtime has no cells elsewhere.

    Args:
        spec: The matrix.
        targets: What is compiled for each device, as `targets.find_targets` found it; without it, what the matrix
            alone says.
    """
    found = targets if targets is not None else {device.name: stated_target(device) for device in spec.devices}
    return [
        CellKey(
            network=network.key,
            runtime=runtime,
            target=found[name],
            device=name,
            threads=threads,
            batch=batch,
            precision="int8" if compiling.is_accelerator(runtime) else "fp32",
        )
        for name in [device.name for device in spec.devices]
        for model in spec.models
        for runtime, threads, batch in product(*_settings(spec, name))
        for network in networks(spec)
        if network.model == model
    ]


def stated_target(device: Device) -> str:
    """The target of a device that need not be asked; UNKNOWN_TARGET where it must be."""
    here = compiling.HOST if device.name == transport.LOCAL else UNKNOWN_TARGET
    return device.target or emulation.target_of(device.name) or fpga.target_of(device.name) or here


def _settings(spec: MatrixSpec, device: str) -> tuple[Sequence[str], Sequence[int], Sequence[int]]:
    """The runtimes, numbers of threads and batch sizes of a device's cells."""
    if fpga.target_of(device) is not None:
        return [runtime for runtime in spec.runtimes if compiling.is_accelerator(runtime)], [1], [1]
    if emulation.target_of(device) is None:
        others = [runtime for runtime in spec.runtimes if not compiling.is_accelerator(runtime)]
        return others, spec.threads, spec.batch
    return [runtime for runtime in spec.runtimes if compiling.is_program(runtime)], [1], spec.batch


def groups(keys: Sequence[CellKey]) -> list[list[CellKey]]:
    """Cells that run interleaved: one model of one dataset on one device, runtime, number of threads and batch size."""
    found: dict[tuple[str, str, str, str, int, int], list[CellKey]] = {}
    for key in keys:
        place = (key.device, key.network.model, key.network.dataset, key.runtime, key.threads, key.batch)
        found.setdefault(place, []).append(key)
    return list(found.values())


def unit(key: CellKey) -> str:
    """The name that a masked/shrunk pair shares; partners run back to back. A dense network is alone in its unit."""
    network = key.network
    if network.variant == "dense":
        return f"dense/{network.seed}"
    return f"{network.method}/{network.pruning_ratio}/{network.seed}"


def _recipes(entry: PruneSpec) -> list[Recipe]:
    combinations = product(entry.method, entry.scope, entry.align, entry.ratio, entry.seed)
    return [
        Recipe(method, scope or pruning.default_scope(method), ratio, seed, entry.batchnorm, entry.options, align)
        for method, scope, align, ratio, seed in combinations
    ]
