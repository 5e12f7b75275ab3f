"""Instructions of one inference, counted under emulation: the difference between a long and a short run.

A count is no latency: loads, branches and multiply-adds weigh the same. But it is exact (repeats differ by a few
hundred), needs no board, and says at once whether code got better or worse. Start with `count_instructions`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeprune.emulation.qemu import Emulator
from edgeprune.errors import DeviceError
from edgeprune.resources import cache_folder, devices_folder
from edgeprune.storage import partial_folder

_SHORT, _LONG = 1, 4
_SECONDS = 3600.0


def count_instructions(program: Path, emulator: Emulator) -> int:
    """Instructions that one inference takes on one thread.

    Args:
        program: A static program that `edgeprune compile` made for the emulator's architecture.
        emulator: Where it runs.

    Raises:
        DeviceError: the program fails under emulation, or no plugin can be built.
    """
    plugin = _plugin()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        counts = {calls: _executed(program, emulator, plugin, calls, Path(folder)) for calls in (_SHORT, _LONG)}
    return round((counts[_LONG] - counts[_SHORT]) / (_LONG - _SHORT))


def _executed(program: Path, emulator: Emulator, plugin: Path, calls: int, folder: Path) -> int:
    """Instructions of a whole run that makes one call more than `calls`."""
    out = folder / f"{calls}.json"
    words = ["measure", "--samples", "1", "--seconds", "0", "--warmup", "1", "--group", str(calls), "--threads", "1"]
    run_program(program, emulator, words, plugin=f"{plugin},out={out}")
    if not out.is_file():
        raise DeviceError(f"{emulator.version()} counted nothing", hint="the plugin is for versions 4.2 to 8.2")
    return int(json.loads(out.read_text())["instructions"])


def run_program(program: Path, emulator: Emulator, arguments: Sequence[str], *, plugin: str | None = None) -> str:
    """Run a static program under emulation; returns what it prints.

    Raises:
        DeviceError: it fails.
    """
    done = emulator.run([str(program), *arguments], plugin=plugin, seconds=_SECONDS)
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise DeviceError(f"{program.name} ended with status {done.returncode} under emulation", detail=said)
    return done.stdout


def _plugin() -> Path:
    """The plugin, compiled the first time it is needed."""
    source = devices_folder() / "qemu" / "count_instructions.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    built = cache_folder() / f"count_instructions-{digest}.so"
    if built.is_file():
        return built
    compiler = shutil.which("cc") or shutil.which("gcc")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    with partial_folder(built.parent) as folder:
        made = folder / built.name
        try:
            subprocess.run(
                [*command, "-shared", "-fPIC", "-O2", str(source), "-o", str(made)],
                capture_output=True, text=True, errors="replace", check=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise DeviceError(
                "the plugin that counts instructions cannot be compiled",
                hint="install a C compiler (Debian: apt install gcc) or ziglang",
                detail=str(getattr(error, "stderr", error)),
            ) from error
        made.replace(built)
    return built
