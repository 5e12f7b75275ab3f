"""`edgeprune doctor [DEVICE]`: what is installed, what blocks good numbers, and the command that mends it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

_DISTRIBUTIONS = ("torch", "onnx", "onnxruntime", "apache-tvm", "fvcore", "matplotlib")
_FREE_BYTES = 2 * 10**9
_BUSY_LOAD = 0.5
_HOT_C = 70.0
_MARKS = {"good": "ok  ", "warning": "warn", "blocked": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: the figure, and what to do where it is not good."""

    state: Literal["good", "warning", "blocked"]
    what: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("device", metavar="DEVICE", nargs="?", default="local", help="default: this machine")


def carry_out(given: argparse.Namespace) -> int:
    """Print every finding; 1 if something blocks measuring."""
    from edgeprune import emulation, transport

    found = list(_laptop())
    if given.device not in emulation.devices():
        found += _device(given.device, transport.connect(given.device).facts())
    for finding in found:
        print(f"{_MARKS[finding.state]}  {finding.what}")
        if finding.advice:
            print(f"      {finding.advice}")
    return 1 if any(finding.state == "blocked" for finding in found) else 0


def _laptop() -> Iterator[Finding]:
    """What the stages need here."""
    from edgeprune.resources import cache_folder

    yield Finding("good", f"Python {sys.version.split()[0]}")
    for name in _DISTRIBUTIONS:
        try:
            yield Finding("good", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("blocked", f"{name} is not installed", f"{sys.executable} -m pip install {name}")
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler:
        yield Finding("good", f"C compiler {compiler}")
    else:
        yield Finding("blocked", "no C compiler: TVM cannot link its libraries", "sudo apt-get install gcc")
    yield from _static_programs()
    cache = cache_folder()
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    words = f"{free / 1e9:.1f} GB free for the cache ({cache})"
    if free < _FREE_BYTES:
        yield Finding("warning", words, "free some space, or set EDGEPRUNE_CACHE to a folder on another disk")
    else:
        yield Finding("good", words)


def _static_programs() -> Iterator[Finding]:
    """What the runtime `native` and the emulated devices need."""
    from edgeprune import emulation
    from edgeprune.errors import DeviceError

    own = os.environ.get("EDGEPRUNE_CC")
    if own:
        yield Finding("good", f"static programs are linked by {own} (EDGEPRUNE_CC)")
    else:
        try:
            yield Finding("good", f"ziglang {metadata.version('ziglang')}")
        except metadata.PackageNotFoundError:
            advice = f"{sys.executable} -m pip install ziglang, or name a compiler of your own in EDGEPRUNE_CC"
            yield Finding("warning", "ziglang is not installed: it links static programs", advice)
    missing, hint = [], ""
    for architecture in emulation.ARCHITECTURES:
        try:
            yield Finding("good", emulation.find_emulator(architecture).version())
        except DeviceError as error:
            missing.append(architecture)
            hint = error.hint or ""
    if missing:
        words = f"no qemu-user for {', '.join(missing)}: no instructions are counted on emulated devices"
        yield Finding("warning", words, hint)


def _device(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What makes numbers on the device unsteady."""
    cores = facts["cores"]
    yield Finding("good", f"{name}: {facts['processor']}, {len(cores)} cores, {facts['os']}")
    if facts["pinning"]:
        yield Finding("good", f"{name}: workers are pinned to cores")
    else:
        yield Finding("warning", f"{name}: no taskset, workers wander between cores", "sudo apt-get install util-linux")
    if len(cores) < 2:
        yield Finding("warning", f"{name}: one core serves the worker and everything else", "expect wider intervals")
    governors = sorted({core["governor"] for core in cores if core["governor"]})
    if governors and governors != ["performance"]:
        yield Finding(
            "warning",
            f"{name}: governor {', '.join(governors)} changes the clock while measuring",
            "sudo cpupower frequency-set -g performance   (and back afterwards)",
        )
    load = float(facts["load"].split()[0]) if facts["load"] else None
    if load is not None:
        limit = _BUSY_LOAD * len(cores)
        state: Literal["good", "warning"] = "warning" if load > limit else "good"
        advice = "close what is running there; `top` names it" if load > limit else ""
        yield Finding(state, f"{name}: load {load:.2f} (at most {limit:.1f} is quiet)", advice)
    temperature = facts["temp_c"]
    if temperature is None:
        yield Finding("warning", f"{name}: no temperature can be read", "throttling would go unnoticed: watch drift")
    elif temperature > _HOT_C:
        yield Finding("warning", f"{name}: {temperature:.0f} °C before anything runs", "let it cool, or add a fan")
    else:
        yield Finding("good", f"{name}: {temperature:.0f} °C")
