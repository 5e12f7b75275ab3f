"""Whether a device on its battery is still the device that is to be measured. Start with `battery_suffices`."""

from __future__ import annotations

LOW_BATTERY_PERCENT = 20


def battery_suffices(percent: float, charging: bool | None) -> bool:
    """Whether a battery has 20 % or more, or is being charged: below, systems save power and lower the clock.

    Args:
        percent: What is left, 0 to 100.
        charging: Whether it is being charged, None where the device does not tell.

    >>> battery_suffices(12, charging=None), battery_suffices(12, charging=True), battery_suffices(20, charging=False)
    (False, True, True)
    """
    return percent >= LOW_BATTERY_PERCENT or bool(charging)
