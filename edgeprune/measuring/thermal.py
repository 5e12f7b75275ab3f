"""Heat: may the next launch start, and did the device hold its clock during the last one.

Pure decisions on what the agent has read; waiting itself is the scheduler's. Start with `thermal_gate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edgeprune.schema import Reading

ABOVE_IDLE_C = 3.0
LONGEST_WAIT_S = 300.0

GateDecision = Literal["go", "wait", "give up"]


def thermal_gate(idle_c: float | None, now_c: float | None, waited_s: float) -> GateDecision:
    """Whether a launch may start: "go" at or below idle + 3 °C, else "wait", and "give up" waiting after 300 s.

    A device without a sensor always goes: there is nothing to wait for. Temperatures are in degrees Celsius.

    >>> thermal_gate(45.0, 47.5, 0.0), thermal_gate(45.0, 61.0, 20.0), thermal_gate(45.0, 61.0, 300.0)
    ('go', 'wait', 'give up')
    """
    if idle_c is None or now_c is None or now_c <= idle_c + ABOVE_IDLE_C:
        return "go"
    return "give up" if waited_s >= LONGEST_WAIT_S else "wait"


def throttled_window(readings: Iterable[Reading]) -> bool | None:
    """Whether the device lowered its clock for heat or power during a launch; None where it cannot tell.

    One reading that says so is enough: a sample taken at a lower clock is another machine's sample.

    >>> throttled_window([Reading(t_ns=0, throttled=False), Reading(t_ns=1, throttled=True)])
    True
    """
    known = [reading.throttled for reading in readings if reading.throttled is not None]
    return any(known) if known else None
