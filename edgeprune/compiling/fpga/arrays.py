"""The cores that can be named in a matrix, and the simulated devices that are one each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeprune.compiling.fpga.geometry import Core
from edgeprune.errors import UnknownNameError
from edgeprune.schema import SIMULATED_PREFIX

_PREFIX = "fpga-"
_CORES: Mapping[str, Core] = MappingProxyType({core.label: core for core in (Core(8), Core(16))})


def devices() -> list[str]:
    """Names of the simulated devices: on `fpga-sim-16x16` a core of 16 x 16 multipliers is simulated."""
    return [SIMULATED_PREFIX + label for label in _CORES]


def target_of(device: str) -> str | None:
    """What is compiled for a simulated device, or None if the name is not that of one."""
    return _PREFIX + device.removeprefix(SIMULATED_PREFIX) if device.startswith(SIMULATED_PREFIX) else None


def core_of(target: str) -> Core:
    """The core that is called so as a target: `fpga-16x16`.

    Raises:
        UnknownNameError: there is none.
    """
    known = {_PREFIX + label: core for label, core in _CORES.items()}
    if target not in known:
        raise UnknownNameError("core", target, known)
    return known[target]
