"""Is a device fit to be measured now: cool, and fed? Start with `wait_until_fit`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edgeprune.matrix.faults import Contact, DeviceGivenUpError
from edgeprune.measuring import battery_suffices, thermal_gate

_POLL_SECONDS = 2.0
_BATTERY_WAIT_SECONDS = 600.0


def wait_until_fit(contact: Contact, idle_temp_c: float | None, tell: Callable[[str], None]) -> float:
    """Wait until the device is near its idle temperature and not on an empty battery; returns the seconds waited.

    Phones lower their clock when the battery is low: what is measured then is another device.

    Args:
        contact: The device.
        idle_temp_c: Its temperature when nothing ran, degrees Celsius, None where it cannot tell.
        tell: Told what is waited for.

    Raises:
        DeviceGivenUpError: its battery stayed low for 10 minutes.
        DeviceError: it does not answer.
        StoppedError: the run is being stopped.
    """
    if idle_temp_c is None and not contact.facts.get("battery"):
        return 0.0
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        facts = contact.way.facts()
        low = low_battery(facts)
        if low and waited >= _BATTERY_WAIT_SECONDS:
            raise DeviceGivenUpError(f"{contact.way.name}: {low}", hint="plug it in, then run the same command")
        if not low and thermal_gate(idle_temp_c, facts.get("temp_c"), waited) != "wait":
            return waited
        tell(f"{low}: plug it in" if low else f"cooling down, {facts['temp_c']} °C")
        contact.pause(_POLL_SECONDS)


def low_battery(facts: Mapping[str, Any]) -> str:
    """In words that a device's battery is too low to measure on; "" where it is not, or where there is none.

    >>> low_battery({"battery": {"percent": 12, "charging": False}})
    'the battery is at 12 % and not charging'
    >>> low_battery({"battery": {"percent": 12, "charging": True}}), low_battery({"battery": None})
    ('', '')
    """
    battery = facts.get("battery")
    if not battery or battery_suffices(battery["percent"], battery["charging"]):
        return ""
    return f"the battery is at {battery['percent']} % and not charging"
