"""A results folder as `edgeprune run` leaves it, with samples drawn from a known model instead of a device.

`write_run` writes manifest and journal; `records` makes the records alone. The shrunk networks keep a known part of
the promised speed-up (`REALISED`), so that a test can say what a report must find.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.journal import Journal
from edgeprune.measuring import PRESETS, blocks
from edgeprune.schema import (
    Accelerated,
    AcceleratedLayer,
    CellEnd,
    CellKey,
    DeviceFacts,
    Launch,
    LayerRow,
    Network,
    NetworkKey,
    Reading,
    Session,
    Variant,
)

DENSE_NS = {"lenet5": 55_000.0, "resnet20": 760_000.0, "resnet56": 2_500_000.0}
DENSE_MACS = {"lenet5": 2_293_000, "resnet20": 40_800_000, "resnet56": 126_500_000}
DENSE_PARAMS = {"lenet5": 431_080, "resnet20": 272_474, "resnet56": 855_770}
SHRINKS_BY = {"lenet5": 2.0, "resnet20": 1.6, "resnet56": 1.75}
REALISED = {"onnxruntime": 0.45, "tvm": 0.8, "torch": 0.1, "native": 0.9}
SLOWER = {"onnxruntime": 1.0, "tvm": 1.05, "torch": 4.6, "native": 1.0}
FACTS: dict[str, Any] = {
    "machine": "x86_64",
    "kernel": "Linux 6.1.0",
    "os": "Debian GNU/Linux 12 (bookworm)",
    "processor": "AMD EPYC",
    "board": "",
    "memory_bytes": 25_276_518_400,
    "temp_c": None,
    "load": "0.80 0.37 0.19 1/88 8009",
    "pinning": True,
    "cores": [{"core": 0, "max_khz": 2_400_000, "governor": ""}, {"core": 1, "max_khz": 2_400_000, "governor": ""}],
}

AnyRecord = Session | DeviceFacts | Network | Launch | CellEnd


def network_key(model: str, ratio: float | None, variant: Variant) -> NetworkKey:
    method = "" if variant == "dense" else "l1"
    return NetworkKey(model=model, dataset="digits", method=method, pruning_ratio=ratio, seed=0, variant=variant)


def cell_keys(models: Sequence[str], ratios: Sequence[float], runtimes: Sequence[str]) -> list[CellKey]:
    """All cells of a run, in the order of its matrix."""
    keys = []
    for model in models:
        networks = [network_key(model, None, "dense")]
        networks += [network_key(model, ratio, variant) for ratio in ratios for variant in ("masked", "shrunk")]
        keys += [
            CellKey(network=network, runtime=runtime, target="cpu", device="local", threads=1, batch=1)
            for network in networks
            for runtime in runtimes
        ]
    return keys


def network(key: NetworkKey) -> Network:
    """What was built: parameters and MACs fall by a known power of what is kept, accuracy late and steeply."""
    ratio = key.pruning_ratio or 0.0
    kept = 1.0 if key.variant != "shrunk" else (1 - ratio) ** SHRINKS_BY[key.model]
    params = round(DENSE_PARAMS[key.model] * kept)
    nonzero = round(DENSE_PARAMS[key.model] * (1 - ratio) ** SHRINKS_BY[key.model])
    macs = round(DENSE_MACS[key.model] * kept)
    accuracy = (
        (0.985 if key.model == "lenet5" else 0.993) - (0.001 if key.variant == "shrunk" else 0.0) - 0.25 * ratio**5
    )
    return Network(
        session_id="first", key=key, params=params, nonzero_params=nonzero,
        macs=macs, uncounted_ops={}, accuracy=accuracy, filters=784, pruned_filters=round(784 * ratio),
        onnx_bytes=4 * params + 20_000, compressed_bytes=round(3.6 * params), parity_rel=3e-7, made_from="0" * 12,
        layers=[LayerRow(layer="conv1", op="Conv2d", in_channels=3, out_channels=16, params=432, macs=442_368),
                LayerRow(layer="fc", op="Linear", in_channels=64, out_channels=10, params=640, macs=640)],
    )  # fmt: skip


def level_ns(key: CellKey) -> float:
    """The true latency of a cell: masked like dense, shrunk faster by the realised part of the promise."""
    base = DENSE_NS[key.network.model] * SLOWER[key.runtime]
    if key.network.variant != "shrunk":
        return base
    return base * (1 - (key.network.pruning_ratio or 0.0)) ** (SHRINKS_BY[key.network.model] * REALISED[key.runtime])


def unit(key: CellKey) -> str:
    ratio = "dense" if key.network.variant == "dense" else str(key.network.pruning_ratio)
    return f"{key.network.model}-{ratio}-{key.runtime}"


def launch(key: CellKey, block: int, order: int, level: float, generator: np.random.Generator) -> Launch:
    group = 1 if level >= 1e6 else math.ceil(1e7 / level)
    samples = level * group * (1 + 0.004 * generator.lognormal(0, 0.7, 64))
    return Launch(
        session_id="first", cell_id=key.cell_id, purpose="latency", block=block, unit=unit(key), order=order,
        started_at="2026-11-20T10:00:00Z", cores=[0], group=group, warmup_ns=[round(2 * level * group)] * 20,
        steady=True, samples_ns=[round(sample) for sample in samples], parity_rel=4e-7, peak_rss_bytes=None,
        readings=[Reading(t_ns=0, temp_c=44.5, throttled=False), Reading(t_ns=10**9, temp_c=46.0, throttled=False)],
    )  # fmt: skip


def records(
    models: Sequence[str] = ("lenet5", "resnet20"),
    ratios: Sequence[float] = (0.3, 0.5, 0.7),
    runtimes: Sequence[str] = ("onnxruntime", "tvm"),
    seed: int = 0,
) -> list[AnyRecord]:
    """The journal of a run in which every cell ended ok."""
    generator = np.random.default_rng(seed)
    keys = cell_keys(models, ratios, runtimes)
    by_id = {key.cell_id: key for key in keys}
    units: dict[str, list[str]] = {}
    for key in keys:
        units.setdefault(unit(key), []).append(key.cell_id)
    made: list[AnyRecord] = [
        Session(session_id="first", started_at="2026-11-20T10:00:00Z", command=["run", "m.yaml"], versions={}, host={}),
        DeviceFacts(session_id="first", device="local", facts=FACTS),
        *(network(one) for one in dict.fromkeys(key.network for key in keys)),
    ]
    wander = 1.0
    for step in blocks(list(units.items()), PRESETS["quick"], seed=seed):
        key = by_id[step.cell_id]
        if step.order == 0 or made[-1].kind != "launch" or made[-1].unit != step.unit:
            # a whole unit is slowed by what else the machine does; partners feel it alike
            wander = math.exp(generator.normal(0, 0.02))
        level = level_ns(key) * wander * math.exp(generator.normal(0, 0.008))
        made.append(launch(key, step.block, step.order, level, generator))
    for key in keys:
        memory = launch(key, 0, 0, level_ns(key), generator)
        made.append(memory.model_copy(update={"purpose": "memory", "samples_ns": [], "peak_rss_bytes": 58_000_000}))
        made.append(CellEnd(session_id="first", cell_id=key.cell_id, key=key, status="ok", artifact_bytes=1_234_567))
    return made


def counted(
    models: Sequence[str] = ("lenet5", "resnet20"),
    ratios: Sequence[float] = (0.3, 0.5, 0.7),
    devices: Sequence[str] = ("emulated-rpi4",),
) -> list[CellEnd]:
    """Ends of cells on emulated devices: the instructions of a shrunk network fall by `REALISED["native"]`."""
    keys = [
        key.model_copy(update={"device": device, "target": device.removeprefix("emulated-")})
        for device in devices
        for key in cell_keys(models, ratios, ["native"])
    ]
    return [
        CellEnd(
            session_id="first", cell_id=key.cell_id, key=key, status="ok", artifact_bytes=1_816_488,
            instructions=round(level_ns(key) * 20),
        )
        for key in keys
    ]  # fmt: skip


def simulated(
    models: Sequence[str] = ("lenet5", "resnet20"),
    ratios: Sequence[float] = (0.3, 0.5, 0.7),
    sizes: Sequence[int] = (8, 16),
) -> list[AnyRecord]:
    """Facts of simulated accelerators and ends of their cells: cycles fall as `level_ns` of `native` does."""
    made: list[AnyRecord] = []
    for size in sizes:
        device, target = f"fpga-sim-{size}x{size}", f"fpga-{size}x{size}"
        steps = [[width, 100 * math.ceil(width / size) ** 2, 576 * width**2] for width in range(1, 65)]
        made.append(DeviceFacts(session_id="first", device=device, facts={"core": size, "staircase": steps}))
        for counted_as in cell_keys(models, ratios, ["native"]):
            place = {"runtime": "fpga", "device": device, "target": target, "precision": "int8"}
            key, cycles = counted_as.model_copy(update=place), round(level_ns(counted_as) / 10)
            layer = AcceleratedLayer(
                layer="Conv_0", op="Conv", in_channels=3, out_channels=16, rows=32, columns=32, macs=cycles * size,
                cycles=cycles, stall_cycles=cycles // 10, bytes_moved=3000,
            )  # fmt: skip
            accelerated = Accelerated(
                multipliers=size * size, macs=cycles * size, busy_cycles=cycles, bytes_read=2000, bytes_written=1000,
                stalls={"load": cycles // 10}, nodes=20, host_nodes=["Softmax_19 (Softmax)"], host_macs=cycles,
                parity_rel=0.002, layers=[layer],
            )  # fmt: skip
            made.append(CellEnd(
                session_id="first", cell_id=key.cell_id, key=key, status="ok", artifact_bytes=345_678, cycles=cycles,
                accuracy=0.97, accelerated=accelerated,
            ))  # fmt: skip
    return made


def by_recipe(made: Sequence[AnyRecord], method: str, seed: int) -> list[AnyRecord]:
    """The same records as another method and seed would have left them; the dense network takes the seed alone."""

    def network_of(key: NetworkKey) -> NetworkKey:
        return key.model_copy(update={"method": key.method and method, "seed": seed})

    cells = {
        one.cell_id: one.key.model_copy(update={"network": network_of(one.key.network)})
        for one in made if isinstance(one, CellEnd)
    }  # fmt: skip
    changed: list[AnyRecord] = []
    for one in made:
        if isinstance(one, Network):
            changed.append(one.model_copy(update={"key": network_of(one.key)}))
        elif isinstance(one, Launch):
            changed.append(one.model_copy(update={"cell_id": cells[one.cell_id].cell_id}))
        elif isinstance(one, CellEnd):
            key = cells[one.cell_id]
            changed.append(one.model_copy(update={"key": key, "cell_id": key.cell_id}))
    return changed


def manifest(keys: Sequence[CellKey], name: str = "quickstart") -> dict[str, Any]:
    return {
        "schema_version": 1,
        "seed": 7,
        "run_id": "20261120-100000-quickstart",
        "name": name,
        "created_at": "2026-11-20T10:00:00Z",
        "matrix": {"name": name, "data": "digits", "models": list(dict.fromkeys(key.network.model for key in keys))},
        "plan": PRESETS["quick"].model_dump(),
        "versions": {"edgeprune": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "onnxruntime": "1.31.1"},
        "devices": {"local": FACTS},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "cells": [{**key.model_dump(), "cell_id": key.cell_id} for key in keys],
    }


def write_run(folder: Path, made: Sequence[AnyRecord] | None = None, asked: Sequence[CellKey] | None = None) -> Path:
    """Write manifest and journal; `asked` are the cells of the matrix, by default those that have an end."""
    made = records() if made is None else made
    keys = [record.key for record in made if isinstance(record, CellEnd)] if asked is None else asked
    with Journal.open(folder) as journal:
        for record in made:
            journal.append(record)
    (folder / "manifest.json").write_text(json.dumps(manifest(keys)))
    return folder
