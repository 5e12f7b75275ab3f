"""Python packages for a board: fetched here as wheels for the board's platform, pushed as one file, unpacked there.

The board needs a Python and nothing else: no internet, no pip, no compiler. Of each wheel only what a worker loads is
pushed (of TVM its runtime: 1.2 of 95 MB). Start with `BoardPython`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from edgeprune import profiles
from edgeprune.errors import DeviceError, RemoteError, TransportError
from edgeprune.resources import cache_folder, devices_folder
from edgeprune.storage import partial_folder, storage_error
from edgeprune.transport.answers import Unpacked, read
from edgeprune.transport.channel import Channel

_PACKAGES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # runtime: packages of the version that is installed here, packages of any version
    "onnxruntime": (("onnxruntime",), ("numpy",)),
    "tvm": (("apache-tvm", "apache-tvm-ffi"), ("numpy", "typing-extensions")),
}
_TAKEN_OF = {"apache-tvm": ("tvm/__init__.py", "tvm/lib/libtvm_runtime.so", "*.dist-info/METADATA")}
_LEFT_OUT = ("*/tests/*", "*/include/*", "*/3rdparty/*", "*.pyi", "*.a", "onnxruntime/transformers/*")
_WHEEL_MACHINES = ("aarch64", "x86_64")
_OLDEST_GLIBC = 17
_FETCH_SECONDS = 900
_ASK_SECONDS = 120.0
_UNPACK_SECONDS = 600.0
_ASK = """
import json, platform, struct, sys
print(json.dumps({"version": list(sys.version_info[:2]), "implementation": sys.implementation.name,
    "machine": platform.machine(), "bits": 8 * struct.calcsize("P"), "libc": list(platform.libc_ver())}), flush=True)
"""


class _Reached(Protocol):
    """What is needed of a transport."""

    @property
    def name(self) -> str: ...

    def push(self, sources: Sequence[Path]) -> list[str]: ...

    def remote_path(self, name: str) -> str: ...

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel: ...


def why_not(runtime: str, facts: Mapping[str, Any]) -> str:
    """Why a runtime that lives in Python cannot be on a reached device, by the device's facts; "" if it may be."""
    if runtime not in _PACKAGES:
        return f"{runtime} runs on this machine alone: no packages of it are pushed to devices"
    if profiles.system_of(facts) == "android":
        return f"{runtime} needs Python, which Android has not; the runtime native needs none"
    if not facts.get("python"):
        remedy = "sudo apt-get install python3, and measure into another folder with --results DIR"
        return f"{runtime} needs Python, which is not there: {remedy}; the runtime native needs none"
    if facts.get("machine") not in _WHEEL_MACHINES:
        return f"there are no wheels of {runtime} for {facts.get('machine')}; the runtime native needs none"
    return ""


class BoardPython:
    """Python on a reached device, with the packages that runtimes need.

    Args:
        device: The way to it.
        python: Its interpreter.
    """

    def __init__(self, device: _Reached, python: str = "python3") -> None:
        self._device = device
        self._python = python
        self._platform: Platform | None = None
        self._bundles: dict[str, Path] = {}

    def command(self, runtime: str | None) -> list[str]:
        """The words that start Python there; with a runtime, so that it finds the runtime's packages.

        What is there already is neither pushed nor unpacked again; a device that lost it gets it anew.

        Raises:
            TransportError: the packages cannot be fetched here, or not be copied.
            RemoteError: Python does not start there, or cannot unpack them.
        """
        if runtime is None:
            return [self._python]
        if runtime not in self._bundles:
            if self._platform is None:
                self._platform = _platform(self._answer([self._python, "-c", _ASK], _ASK_SECONDS), self._device.name)
            self._bundles[runtime] = _bundle(runtime, self._platform)
        bundle = self._bundles[runtime]
        (script,) = self._device.push([devices_folder() / "workers" / "unpack_packages.py"])
        folder = self._device.remote_path(bundle.stem)
        looked = self._answer([self._python, script, folder], _ASK_SECONDS)
        if not read(Unpacked, looked, self._device.name).there:
            (archive,) = self._device.push([bundle])
            self._answer([self._python, script, folder, archive], _UNPACK_SECONDS)
        return ["env", f"PYTHONPATH={folder}", self._python]

    def _answer(self, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
        channel = self._device.run(arguments, None)
        try:
            return channel.receive(seconds)
        except RemoteError as error:
            hint = "is python3 installed there? sudo apt-get install python3; the runtime native needs none"
            raise RemoteError(error.message, hint=error.hint or hint, detail=error.detail) from error
        finally:
            channel.stop()


@dataclass(frozen=True)
class Platform:
    """What wheels must fit: Python's version, the machine, and the newest wheel platform of its C library."""

    version: tuple[int, int]
    machine: str
    glibc: int

    @property
    def tags(self) -> list[str]:
        """The platform tags of wheels that fit, newest first (PEP 600)."""
        return [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1)] + [
            f"manylinux2014_{self.machine}"
        ]


def _platform(told: Mapping[str, Any], device: str) -> Platform:
    """What a device's Python says of itself, as a platform of wheels."""
    try:
        major, minor = (int(part) for part in told["version"])
        library, version = told["libc"]
        parts = [int(part) for part in version.split(".")] if library == "glibc" else []
        problem = ""
        if told["implementation"] != "cpython" or len(parts) < 2 or parts[0] != 2:
            problem = f"a {told['implementation']} with {library or 'another C library than glibc'} {version}"
        elif told["bits"] != 64:
            problem = "a 32-bit Python" + (" on a 64-bit kernel" if told["machine"] in _WHEEL_MACHINES else "")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RemoteError(f"{device}: Python says nothing of itself: {error!r}") from error
    if problem:
        raise DeviceError(
            f"{device}: it has {problem}, and wheels are for CPython with glibc on 64 bits",
            hint="use the runtime native there: it needs no Python",
        )
    return Platform((major, minor), str(told["machine"]), parts[1])


def _bundle(runtime: str, platform: Platform) -> Path:
    """One zip file of the runtime's packages for a platform, from the cache or fetched."""
    pinned, free = _PACKAGES[runtime]
    wanted = [*(f"{name}=={metadata.version(name)}" for name in pinned), *free]
    ingredients = json.dumps([wanted, platform.version, platform.tags, _TAKEN_OF, _LEFT_OUT])
    key = hashlib.sha256(ingredients.encode()).hexdigest()[:12]
    bundle = cache_folder() / "wheels" / f"{runtime}-{key}.zip"
    if not bundle.is_file():
        try:
            with partial_folder(bundle.parent) as folder:
                _fetch(runtime, wanted, platform, folder)
                packed = folder / bundle.name
                _pack(sorted(folder.glob("*.whl")), packed)
                packed.replace(bundle)
        except OSError as error:
            raise storage_error(error, bundle.parent) from error
    return bundle


def _fetch(runtime: str, wanted: Sequence[str], platform: Platform, folder: Path) -> None:
    version = ".".join(map(str, platform.version))
    tags = [word for tag in platform.tags for word in ("--platform", tag)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version", version, *tags, "--dest", str(folder), *wanted,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_FETCH_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransportError(f"the packages of {runtime} for the device cannot be fetched: {error}") from error
    if done.returncode:
        raise TransportError(
            f"no wheels of {' '.join(wanted)} for Python {version} on {platform.machine} with glibc 2.{platform.glibc} "
            "can be fetched",
            hint="is this machine online? else use the runtime native there: it needs no Python",
            detail=done.stderr.strip()[-2000:] or None,
        )


def _pack(wheels: Sequence[Path], bundle: Path) -> None:
    """Write what workers load of some wheels into one zip file."""
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as packed:
        for wheel in wheels:
            distribution = wheel.name.split("-")[0].replace("_", "-")
            with contextlib.closing(zipfile.ZipFile(wheel)) as opened:
                for member in opened.infolist():
                    if not member.is_dir() and _is_taken(distribution, member.filename):
                        packed.writestr(member, opened.read(member), zipfile.ZIP_DEFLATED)


def _is_taken(distribution: str, path: str) -> bool:
    if distribution in _TAKEN_OF:
        return any(fnmatchcase(path, pattern) for pattern in _TAKEN_OF[distribution])
    return not any(fnmatchcase(path, pattern) for pattern in _LEFT_OUT)
