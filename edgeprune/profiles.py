"""The known processors and devices, one YAML file each in `devices/profiles/`: what code is compiled for, how a device
is recognised, and what is normal on it. Start with `profiles` and `recognise`.

A file holds a target (triple, processor, vector unit, caches) and, under `device`, what is known of the device itself.
A user's own file anywhere does as well.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeprune.errors import UserError
from edgeprune.resources import devices_folder

System = Literal["linux", "android"]
SUFFIXES = (".yaml", ".yml")
_KEYS = "triple, cpu, features, vector_bits, vector_registers"


class DeviceProfile(BaseModel):
    """What is known of a device beside its processor.

    Attributes:
        boards: Shell patterns of what such a device calls itself: a board's device-tree model, a phone's
            ro.product.model.
        machines: What `uname -m` says on any device that the target fits, whatever it calls itself.
        clusters: Its cores, slowest cluster first; for systems that tell neither clock nor capacity.
        hot_c: Before a run it should not be warmer, degrees Celsius.
        throttles_c: From here on its clock is lowered, degrees Celsius; None if that is not documented.
        reads: What it can tell of itself; the doctor says how to make it tell that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    boards: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    clusters: tuple[tuple[int, ...], ...] = ()
    hot_c: float = Field(default=70.0, gt=0.0)
    throttles_c: float | None = Field(default=None, gt=0.0)
    reads: tuple[Literal["temp_c", "clock_hz", "throttled", "battery"], ...] = ()

    @property
    def fastest_first(self) -> list[int]:
        """Its cores, those of the fastest cluster first; among equals the last first."""
        return [core for cluster in reversed(self.clusters) for core in reversed(cluster)]


class Profile(BaseModel):
    """One file: a target, and the device that has it; see `compiling.Target` for the target's fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    triple: str = Field(pattern=r"^[a-z0-9_]+-[a-z0-9_-]+$")
    cpu: str = Field(default="", pattern=r"^[a-z0-9._-]*$")
    features: tuple[str, ...] = ()
    vector_bits: Literal[128, 256, 512]
    vector_registers: int = Field(ge=8, le=64)
    l1_bytes: int | None = Field(default=None, gt=0)
    l2_bytes: int | None = Field(default=None, gt=0)
    device: DeviceProfile = DeviceProfile()

    @property
    def architecture(self) -> str:
        """The triple's first word."""
        return self.triple.partition("-")[0]

    @property
    def system(self) -> System:
        """The system that such a device runs."""
        return "android" if "android" in self.triple else "linux"


@functools.cache
def profiles() -> Mapping[str, Profile]:
    """All profiles that come along, by name."""
    files = sorted((devices_folder() / "profiles").glob("*.yaml"))
    return {file.stem: read_profile(file) for file in files}


def read_profile(path: Path) -> Profile:
    """The profile in a file.

    Raises:
        UserError: the file cannot be read, or says something else than a target.
    """
    hint = f"a target's file looks like those of devices/profiles: {_KEYS}"
    try:
        return Profile.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the target's file {path}: {error}", hint=hint) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML", hint=hint, detail=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {field}: {first['msg'][0].lower()}{first['msg'][1:]}", hint=hint) from error


def system_of(facts: Mapping[str, Any]) -> System:
    """Whether a device's facts are those of Android, or of any other Linux."""
    return "android" if facts.get("sdk") or facts.get("abi") else "linux"


def recognise(facts: Mapping[str, Any]) -> str | None:
    """The profile that fits a device that answered, by its facts; None if there is none.

    First by what it calls itself, then by its architecture. A board whose system is not the profile's (a Raspberry Pi 4
    with a 32-bit kernel) is not taken for it: the code would not run.

    >>> recognise({"board": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64"})
    'rpi4'
    >>> recognise({"board": "Raspberry Pi 4 Model B Rev 1.4", "machine": "armv7l"})
    'rpi2'
    """
    machine, system = str(facts.get("machine", "")), system_of(facts)
    names = [str(facts[fact]) for fact in ("board", "model") if facts.get(fact)]
    fitting = {name: one for name, one in profiles().items() if one.system == system and not misfit(one, facts)}
    for name, one in fitting.items():
        if any(fnmatchcase(called, pattern) for called in names for pattern in one.device.boards):
            return name
    return next((name for name, one in fitting.items() if machine in one.device.machines), None)


def misfit(profile: Profile, facts: Mapping[str, Any]) -> str:
    """Why code for a profile would not run on a device, by what the device says of itself; "" if it would.

    >>> board = {"machine": "aarch64", "features": "fp asimd crc32"}
    >>> misfit(profiles()["rpi5"], board), misfit(profiles()["rpi4"], board)
    ('its processor has no dotprod, fullfp16', '')
    """
    machine = str(facts.get("machine", ""))
    if machine != profile.architecture and machine not in profile.device.machines:
        return f"its processor is {machine}, and the code is for {profile.architecture}"
    always = {"neon"} if profile.architecture == "aarch64" else set()  # part of the architecture
    missing = missing_features(tuple(one for one in profile.features if one not in always), facts)
    return f"its processor has no {', '.join(missing)}" if missing else ""


def missing_features(features: tuple[str, ...], facts: Mapping[str, Any]) -> list[str]:
    """The instruction sets that a target uses and a device says it has not; none where it says nothing."""
    told = facts.get("features")
    if not told:
        return []
    there = set(told.split()) if isinstance(told, str) else set(told)
    return [feature for feature in features if _KERNEL_WORDS.get(feature, feature) not in there]


# what the kernel calls an instruction set, where it is another word than LLVM's; on armv7 neon is neon
_KERNEL_WORDS = {"vfp4": "vfpv4", "dotprod": "asimddp", "fullfp16": "asimdhp"}
