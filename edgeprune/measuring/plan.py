"""How much is measured, and in which order.

A `MeasurePlan` says how many samples, seconds and launches a cell gets; `plan` makes one from a preset's name or from
numbers in a matrix; `blocks` lays the launches of all cells out in a random but recorded order, so that a machine that
slowly warms up or is disturbed for a while touches the two networks of a pair alike. Start with `blocks`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.schema import Record

T = TypeVar("T")

GROUP_BELOW_NS = 1_000_000


class MeasurePlan(Record):
    """How one cell is measured; a launch ends when `samples` and `seconds` are both reached.

    `launches` fresh processes a cell, which is also the number of blocks. A call shorter than 1 ms is timed in groups
    of about `group_seconds`. Warm-up takes at least `warmup_calls` calls and `warmup_seconds`, then the last
    `warmup_window` samples must be steady; after `warmup_max` samples it is given up and the launch is flagged.
    Source: the defaults of pyperf (window and maximum) and of MLPerf Mobile (1,024 samples and 60 s for `paper`).
    """

    name: str
    samples: int = Field(ge=1)
    seconds: float = Field(ge=0.0, allow_inf_nan=False)
    launches: int = Field(ge=1)
    group_seconds: float = Field(gt=0.0, allow_inf_nan=False)
    warmup_calls: int = Field(default=10, ge=0)
    warmup_seconds: float = Field(default=0.5, ge=0.0, allow_inf_nan=False)
    warmup_window: int = Field(default=20, ge=4)
    warmup_max: int = Field(default=300, ge=4)


# Quick groups 10 ms, not 100 ms: 64 groups of 100 ms would make every launch take 6.4 s, and a demo is to be short.
PRESETS: Mapping[str, MeasurePlan] = {
    "quick": MeasurePlan(name="quick", samples=64, seconds=1.0, launches=3, group_seconds=0.01),
    "standard": MeasurePlan(name="standard", samples=128, seconds=10.0, launches=6, group_seconds=0.1),
    "paper": MeasurePlan(name="paper", samples=1024, seconds=60.0, launches=10, group_seconds=0.1),
}


def plan(name_or_mapping: str | Mapping[str, Any]) -> MeasurePlan:
    """The measuring plan a matrix asks for: a preset's name, or numbers for some of its fields.

    Fields that a mapping leaves out come from the preset it names under `name`, else from `standard`.

    Raises:
        UnknownNameError: A preset or a field that does not exist.
        UserError: A value of the wrong type or out of its range.

    >>> plan("quick").launches
    3
    >>> plan({"name": "quick", "launches": 5}).samples
    64
    """
    if isinstance(name_or_mapping, str):
        if name_or_mapping not in PRESETS:
            raise UnknownNameError("measuring plan", name_or_mapping, PRESETS, where="measure")
        return PRESETS[name_or_mapping]
    if not isinstance(name_or_mapping, Mapping):
        raise UserError(
            f"measure: expected a preset or a mapping, got {name_or_mapping!r}",
            hint="write one of " + ", ".join(PRESETS) + ", or a mapping such as {samples: 128, launches: 6}",
        )
    for key in name_or_mapping:
        if key not in MeasurePlan.model_fields:
            raise UnknownNameError("field", str(key), MeasurePlan.model_fields, where="measure")
    base = PRESETS.get(str(name_or_mapping.get("name", "")), PRESETS["standard"])
    fields = base.model_dump() | {"name": "custom"} | dict(name_or_mapping)
    try:
        made = MeasurePlan.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"measure: {field} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}",
            hint=f"the preset {base.name} has {field}: {getattr(base, field)}",
        ) from error
    if made.warmup_max < made.warmup_window:
        raise UserError(
            f"measure: warmup_max = {made.warmup_max} is less than warmup_window = {made.warmup_window}",
            hint=f"raise warmup_max to {made.warmup_window} or more",
        )
    return made


def group_size(call_ns: float, plan: MeasurePlan) -> int:
    """How many calls make one sample: 1 if a call takes 1 ms or more, else enough to fill `plan.group_seconds`.

    `call_ns` is the wall time of one warm call in nanoseconds.

    >>> group_size(20_000, PRESETS["quick"]), group_size(2_000_000, PRESETS["quick"])
    (500, 1)
    """
    if call_ns >= GROUP_BELOW_NS:
        return 1
    return max(1, math.ceil(plan.group_seconds * 1e9 / max(call_ns, 1.0)))


@dataclass(frozen=True)
class Step:
    """One launch to make: the `order`-th of its block, for a cell of a unit."""

    block: int
    unit: str
    order: int
    cell_id: str


def blocks(units: Sequence[tuple[str, Sequence[str]]], plan: MeasurePlan, seed: int) -> list[Step]:
    """All launches of a device, in the order in which they are to be made.

    A block holds one launch of every cell. Within a block the units (a masked/shrunk pair, or a dense network alone)
    are in random order, and so are the cells inside a unit, so that partners run back to back. The order depends on
    `seed` and on the names alone: not on the order in which they are given, nor on the number of blocks.

    Source: Kalibera & Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, section 2 (randomised order).

    >>> [step.order for step in blocks([("pair", ["m", "s"]), ("dense", ["d"])], PRESETS["quick"], seed=0)][:3]
    [0, 1, 2]
    """
    steps: list[Step] = []
    for block in range(plan.launches):
        # a string seed goes through SHA-512, so neighbouring seeds and blocks give unrelated orders
        generator = random.Random(f"{seed}:{block}")
        order = 0
        for unit, cell_ids in _shuffled(sorted(units, key=lambda item: item[0]), generator):
            for cell_id in _shuffled(sorted(cell_ids), generator):
                steps.append(Step(block, unit, order, cell_id))
                order += 1
    return steps


def _shuffled(items: list[T], generator: random.Random) -> list[T]:
    return generator.sample(items, len(items))
