"""A device while a run uses it: its cores, its idle temperature, and how long the launches left on it will take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune import compiling, profiles, transport
from edgeprune.errors import LinkLostError
from edgeprune.profiles import DeviceProfile
from edgeprune.transport import Transport

_LAUNCH_OVERHEAD_SECONDS = 1.0


@dataclass(frozen=True)
class DeviceInUse:
    """A device of the matrix, with the temperature it had when nothing ran.

    Attributes:
        way: The way to it.
        wanted_cores: Those that the user wants workers to run on; none for the fastest.
        facts: What it says of itself; where it is `away`, what it said in an earlier session.
        idle_temp_c: Degrees Celsius, None where it cannot tell.
        away: Why it did not answer at the run's start, where it is known from an earlier session.
    """

    way: Transport
    wanted_cores: Sequence[int]
    facts: Mapping[str, Any]
    idle_temp_c: float | None
    away: LinkLostError | None = None


def why_not(device: DeviceInUse, runtime: str) -> str:
    """Why a runtime cannot be on a device, by what the device says of itself; "" if it may be."""
    if device.way.is_this_machine or compiling.is_program(runtime):
        return ""
    return transport.why_not(runtime, device.facts)


def ranked_cores(facts: Mapping[str, Any]) -> list[int]:
    """A device's cores, fastest cluster first; among equals the last first, since the first serve interrupts.

    Where the device tells neither clock nor capacity, its profile says which are the fastest.
    """
    cores: list[dict[str, Any]] = facts["cores"]
    if not any(core["capacity"] or core["max_khz"] for core in cores):
        known = profiles.profiles().get(profiles.recognise(facts) or "")
        by_profile = known.device.fastest_first if known else []
        if {core["core"] for core in cores} <= set(by_profile):
            return [core for core in by_profile if core in {one["core"] for one in cores}]
    ranked = sorted(cores, key=lambda core: (core["capacity"] or 0, core["max_khz"] or 0, core["core"]), reverse=True)
    return [int(core["core"]) for core in ranked]


def idle_temp_c(known: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> float | None:
    """The lowest temperature seen at the start of a session, in degrees Celsius; None where the device cannot tell.

    A restart right after a load is not idle, and neither is a device that is found hotter than its profile allows.
    """
    seen = [float(one["temp_c"]) for one in (known, facts) if one and one.get("temp_c") is not None]
    profile = profiles.profiles().get(profiles.recognise(facts) or "")
    limits = profile.device if profile else DeviceProfile()
    return min([*seen, limits.hot_c]) if seen else None


class Clock:
    """How long the launches that are left will take, by the ones made so far."""

    def __init__(self, expected_seconds: float, left: int) -> None:
        self._expected = expected_seconds + _LAUNCH_OVERHEAD_SECONDS
        self._left = left
        self._done = 0
        self._began = time.monotonic()

    def one_done(self) -> None:
        self._done += 1

    def seconds_left(self) -> float:
        each = (time.monotonic() - self._began) / self._done if self._done else self._expected
        return each * max(0, self._left - self._done)
