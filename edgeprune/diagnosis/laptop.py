"""What the stages, the emulated devices and the ways to devices need on this machine. Start with `look_here`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from edgeprune import emulation
from edgeprune.compiling import fpga
from edgeprune.diagnosis.finding import Finding, judged
from edgeprune.errors import DeviceError
from edgeprune.resources import cache_folder

_DISTRIBUTIONS = ("torch", "onnx", "onnxruntime", "apache-tvm", "fvcore", "matplotlib")
_FREE_BYTES = 2 * 10**9
_ASK_SECONDS = 20


def look_here() -> Iterator[Finding]:
    """What is installed on this machine."""
    yield Finding("good", "Python", f"Python {sys.version.split()[0]}")
    for name in _DISTRIBUTIONS:
        try:
            yield Finding("good", "package", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding(
                "blocked", "package", f"{name} is not installed", "", f"{sys.executable} -m pip install {name}"
            )
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    missing = "TVM cannot link its libraries: sudo apt-get install gcc"
    yield judged(compiler is not None, "C compiler", compiler or "none", "", missing, bad="blocked")
    yield from _static_programs()
    yield _simulator()
    cache = cache_folder()
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    advice = "free some space, or set EDGEPRUNE_CACHE to a folder on another disk"
    words = f"{free / 1e9:.1f} GB free for the cache ({cache})"
    yield judged(free >= _FREE_BYTES, "disk", words, f"at least {_FREE_BYTES / 1e9:.0f} GB", advice)


def ssh_client() -> Finding:
    """The ssh that boards are reached with."""
    return _program("ssh client", ["ssh", "-V"], "boards are reached with it: sudo apt-get install openssh-client")


def adb_client(adb: str) -> Finding:
    """The adb that phones are reached with."""
    return _program("adb", [adb, "version"], "phones are reached with it: sudo apt-get install adb")


def _program(check: str, command: list[str], advice: str) -> Finding:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("blocked", check, f"{command[0]} does not start: {error}", "", advice)
    lines = (done.stdout + done.stderr).strip().splitlines()
    version = next((line for line in lines if line.startswith("Version")), lines[0] if lines else "")
    return Finding("good", check, version.removeprefix("Version ") or command[0])


def _simulator() -> Finding:
    """What the simulated accelerators need."""
    try:
        return Finding("good", "simulator", fpga.simulator_version())
    except DeviceError as error:
        return Finding("warning", "simulator", f"{error.message}: no cycles are counted", "", error.hint or "")


def _static_programs() -> Iterator[Finding]:
    """What the runtime `native` and the emulated devices need."""
    own = os.environ.get("EDGEPRUNE_CC")
    if own:
        yield Finding("good", "linker", f"{own} (EDGEPRUNE_CC)")
    else:
        try:
            yield Finding("good", "linker", f"ziglang {metadata.version('ziglang')}")
        except metadata.PackageNotFoundError:
            advice = f"{sys.executable} -m pip install ziglang, or name a compiler of your own in EDGEPRUNE_CC"
            yield Finding("warning", "linker", "ziglang is not installed: it links static programs", "", advice)
    missing, hint = [], ""
    for architecture in emulation.ARCHITECTURES:
        try:
            yield Finding("good", "emulator", emulation.find_emulator(architecture).version())
        except DeviceError as error:
            missing.append(architecture)
            hint = error.hint or ""
    if missing:
        words = f"no qemu-user for {', '.join(missing)}: no instructions are counted on emulated devices"
        yield Finding("warning", "emulator", words, "", hint)
