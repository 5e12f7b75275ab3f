"""What the code is compiled for: vector width, registers and caches of a processor, by name.

`target("host")` is this machine, read from `/proc/cpuinfo` and sysfs. A new target is one entry of `_TARGETS`.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import UnknownNameError


@dataclass(frozen=True)
class Target:
    """A processor.

    Attributes:
        name: Name in a matrix.
        tvm: Target options as TVM takes them: kind, triple, cpu, features.
        vector_bits: Width of a vector register.
        vector_registers: Number of vector registers.
        l1_bytes: First-level data cache of a core, None if unknown.
        l2_bytes: Second-level cache of a core, None if unknown.
    """

    name: str
    tvm: dict[str, Any]
    vector_bits: int
    vector_registers: int
    l1_bytes: int | None
    l2_bytes: int | None

    def ingredients(self) -> dict[str, Any]:
        """Everything that the compiled code depends on, as JSON values; no schedule looks at the caches."""
        return {
            "name": self.name,
            "tvm": self.tvm,
            "vector_bits": self.vector_bits,
            "vector_registers": self.vector_registers,
        }


def targets() -> list[str]:
    """The names of all targets."""
    return sorted(_TARGETS)


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in _TARGETS:
        raise UnknownNameError("target", name, _TARGETS)
    return _TARGETS[name]()


@functools.cache
def _host() -> Target:
    flags = set(_cpu_flags(Path("/proc/cpuinfo")))
    bits, registers, features = _vector_unit(platform.machine(), flags)
    options: dict[str, Any] = {"kind": "llvm"}
    if features:
        options["mattr"] = features
    cache = Path("/sys/devices/system/cpu/cpu0/cache")
    return Target("host", options, bits, registers, _cache_bytes(cache / "index0"), _cache_bytes(cache / "index2"))


def _cpu_flags(cpuinfo: Path) -> list[str]:
    """Instruction-set features as Linux names them; empty where they cannot be read."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    return next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])


def _vector_unit(machine: str, flags: set[str]) -> tuple[int, int, list[str]]:
    """Vector bits, vector registers, and the features that the code may use beyond the architecture's own."""
    if machine in ("aarch64", "arm64"):
        return 128, 32, []
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags:
        return 512, 32, ["+avx512f", "+avx512vl", "+avx512bw", "+avx512dq", "+avx2", "+fma", "+f16c", "+bmi2"]
    if {"avx2", "fma"} <= flags:
        return 256, 16, ["+avx2", "+fma", "+f16c", "+bmi2"]
    return 128, 16, []


def _cache_bytes(index: Path) -> int | None:
    try:
        text = (index / "size").read_text().strip()
    except OSError:
        return None
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
    digits = text.rstrip("KM")
    return int(digits) * scale if digits.isdigit() else None


_TARGETS: dict[str, Callable[[], Target]] = {"host": _host}
