"""What the code is compiled for: instruction sets, vector width, registers and caches of a processor, by name.

`target("host")` is this machine, read from `/proc/cpuinfo` and sysfs. Every other target is one file of
`devices/profiles/` (read by `edgeprune.profiles`), and a user's own is one such file anywhere. Start with `target`.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.profiles import SUFFIXES, Profile, profiles, read_profile

HOST = "host"
_ARCHITECTURES = {"aarch64": "aarch64-linux-musl", "armv7l": "arm-linux-musleabihf", "x86_64": "x86_64-linux-musl"}
# LLVM's other scheduler for armv7 reorders long runs of multiply-adds until they spill: twice as many instructions
_COMPILER_FEATURES = {"armv7l": ("use-misched",)}
_OLDEST_GLIBC = "2.17"
"""A shared library needs nothing newer of the device's C library: any Linux since 2013 has it."""
_SYSTEMS = {"Linux": "linux-gnu", "Darwin": "apple-darwin"}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True)
class Target:
    """A processor.

    Attributes:
        name: Name in a matrix.
        triple: Architecture, system and binary interface, as LLVM writes them.
        cpu: The processor that code is scheduled for, by LLVM's name; "" for the architecture's own.
        features: Instruction sets that the code uses beyond the architecture's own, as `devices/native/features.c`
            names them: neon, vfp4, dotprod, fullfp16, avx2, fma, ...
        vector_bits: Width of a vector register.
        vector_registers: Number of vector registers.
        l1_bytes: First-level data cache of a core, None if unknown.
        l2_bytes: Second-level cache of a core, None if unknown.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    l1_bytes: int | None
    l2_bytes: int | None

    @property
    def architecture(self) -> str:
        """The triple's first word: aarch64, armv7l or x86_64."""
        return self.triple.partition("-")[0]

    @property
    def static_triple(self) -> str:
        """The triple of a static program that needs no C library on the device, as zig writes it.

        A static program with musl runs on Android's kernel as on any other.

        Raises:
            UserError: there is none for the architecture.
        """
        if self.architecture not in _ARCHITECTURES:
            raise UserError(
                f"target {self.name}: no static program can be made for {self.architecture}",
                hint="known architectures: " + ", ".join(_ARCHITECTURES),
            )
        return _ARCHITECTURES[self.architecture]

    @property
    def shared_triple(self) -> str:
        """The triple of a shared library for a device's Python, as zig writes it: with glibc, as Linux has it.

        Raises:
            UserError: the target's system has another C library.
        """
        known = self.static_triple  # refuses an unknown architecture
        if "-linux-gnu" not in self.triple:
            raise UserError(
                f"target {self.name}: no library for {self.triple} can be made, only for Linux with glibc",
                hint="use the runtime native: its program needs no C library there",
            )
        return f"{known.replace('musl', 'gnu')}.{_OLDEST_GLIBC}"

    @property
    def tvm(self) -> dict[str, Any]:
        """The target as TVM takes it."""
        # level 3 writes every loop of a Winograd transform out: a quarter more code on armv7, for up to 8 % fewer
        # instructions of ResNet-20 there; on AArch64 it takes 2 % more
        options: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "opt-level": 2}
        if self.cpu:
            options["mcpu"] = self.cpu
        features = [*self.features, *_COMPILER_FEATURES.get(self.architecture, ())]
        if features:
            options["mattr"] = [f"+{feature}" for feature in features]
        if self.triple.endswith("hf"):
            options["mfloat-abi"] = "hard"
        return options

    def ingredients(self) -> dict[str, Any]:
        """Everything that the compiled code depends on, as JSON values."""
        return {
            "name": self.name,
            "tvm": self.tvm,
            "vector_bits": self.vector_bits,
            "vector_registers": self.vector_registers,
            "l2_bytes": self.l2_bytes,
        }


def targets() -> list[str]:
    """The names of all targets."""
    return sorted([HOST, *profiles()])


def target(name: str) -> Target:
    """The target of that name, or that a file describes.

    Args:
        name: One of `targets()`, or the path of a file such as those of `devices/profiles/`.

    Raises:
        UnknownNameError: there is none of that name.
        UserError: the file cannot be read, or says something else than a target.
    """
    if name == HOST:
        return _host()
    if name.endswith(SUFFIXES):
        return _of(Path(name).stem, read_profile(Path(name)))
    if name not in profiles():
        raise UnknownNameError("target", name, targets())
    return _of(name, profiles()[name])


def _of(name: str, profile: Profile) -> Target:
    return Target(
        name, **{field.name: getattr(profile, field.name) for field in fields(Target) if field.name != "name"}
    )


@functools.cache
def _host() -> Target:
    machine = _MACHINES.get(platform.machine(), platform.machine())
    system = _SYSTEMS.get(platform.system(), platform.system().lower())
    bits, registers, features = _vector_unit(machine, set(_cpu_flags(Path("/proc/cpuinfo"))))
    caches = Path("/sys/devices/system/cpu/cpu0/cache")
    return Target(
        HOST, f"{machine}-{system}", "", features, bits, registers, _cache_bytes(caches / "index0"),
        _cache_bytes(caches / "index2"),
    )  # fmt: skip


def processor_name() -> str:
    """What this machine's processor calls itself, as Linux tells it; "" where it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "CPU part"))), "")


def _cpu_flags(cpuinfo: Path) -> list[str]:
    """Instruction-set features as Linux names them; empty where they cannot be read."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    return next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])


def _vector_unit(machine: str, flags: set[str]) -> tuple[int, int, tuple[str, ...]]:
    """Vector bits, vector registers, and the features that the code may use beyond the architecture's own."""
    if machine == "aarch64":
        return 128, 32, ("neon",)
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags:
        return 512, 32, ("avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma", "f16c", "bmi2")
    if {"avx2", "fma"} <= flags:
        return 256, 16, ("avx2", "fma", "f16c", "bmi2")
    return 128, 16, ()


def _cache_bytes(index: Path) -> int | None:
    try:
        text = (index / "size").read_text().strip()
    except OSError:
        return None
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
    digits = text.rstrip("KM")
    return int(digits) * scale if digits.isdigit() else None
