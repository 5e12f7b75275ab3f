"""Emulated devices, by name: one for each target that is not this machine. Nothing is timed on them."""

from __future__ import annotations

from edgeprune import compiling
from edgeprune.schema import EMULATED_PREFIX

_HOST = "host"


def devices() -> list[str]:
    """Names of the emulated devices: `emulated-rpi4` counts the instructions of code for the target `rpi4`."""
    return [EMULATED_PREFIX + name for name in compiling.targets() if name != _HOST]


def target_of(device: str) -> str | None:
    """The target that a device emulates, or None if the name is not that of an emulated device."""
    return device.removeprefix(EMULATED_PREFIX) if device.startswith(EMULATED_PREFIX) else None
