"""The core of `devices/fpga/rtl` as a program, cycle by cycle: built by Verilator and g++, kept in the cache.

Start with `simulate`. A build takes about a minute and is done once for a core; its name in the cache is a hash of the
hardware's sources, the parameters and the tools' versions.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.commands import UNITS
from edgeprune.compiling.fpga.geometry import Core, Memory
from edgeprune.errors import CompileError, DeviceError, StorageError
from edgeprune.resources import cache_folder, devices_folder
from edgeprune.storage import partial_folder

INSTALL = "install Verilator 5 and g++ (Debian: apt install verilator g++)"
_FLAGS = ("-O2", "-std=gnu++17", "-fPIC", "-shared", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0")
_MOST_CYCLES = 1 << 40
_TOPS = {False: "core", True: "axi_core"}
_ACTIVITIES = ("working", "no_command", "load", "compute", "store", "weights", "output", "pause")


class _Setup(ctypes.Structure):
    _fields_ = (("latency", ctypes.c_uint64), ("bandwidth256", ctypes.c_uint64), ("most_cycles", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = (
        ("cycles", ctypes.c_uint64), ("bytes_read", ctypes.c_uint64), ("bytes_written", ctypes.c_uint64),
        ("activity", ctypes.c_uint64 * 8), ("wrong_address", ctypes.c_uint64),
    )  # fmt: skip


class Stream(Protocol):
    """Commands for a core: a `Program`, or what was stored of one."""

    @property
    def core(self) -> Core:
        """What they are for."""

    def words(self) -> NDArray[np.uint32]:
        """uint32 [commands, 16]."""


@dataclass(frozen=True)
class Timing:
    """When a command ran.

    Attributes:
        begin: Cycle of a compute's first vector of activations; 0 for transfers.
        end: Cycle in which its last word was written.
        stall_cycles: Cycles in which the array stood still before or within a compute, for whatever it had to wait.
    """

    begin: int
    end: int
    stall_cycles: int


@dataclass(frozen=True)
class Simulation:
    """What a run gave and took.

    Attributes:
        memory: int8 [bytes], after the run.
        cycles: From the first command to the last word written.
        busy_cycles: Cycles in which all N x N multipliers had an activation, of use or padding.
        bytes_read, bytes_written: Between core and memory, without the commands' own 64 bytes each.
        stalls: Cycles in which the array stood still, by reason: `no_command`; `load`, `compute`, `store` that it
            had to wait for; `weights` on their way to the array; `output` parameters; `pause` between short passes.
        timings: One a command, in the order of the stream.
    """

    memory: NDArray[np.int8]
    cycles: int
    busy_cycles: int
    bytes_read: int
    bytes_written: int
    stalls: dict[str, int]
    timings: tuple[Timing, ...]


def simulate(
    program: Stream, memory: NDArray[np.int8], behind: Memory | None = None, *, most_cycles: int = _MOST_CYCLES
) -> Simulation:
    """Run a program over a memory image; the image itself stays as it is.

    Args:
        program: Commands for a core.
        memory: int8 [bytes].
        behind: Latency and bandwidth of the memory.
        most_cycles: The run is given up then.

    Raises:
        DeviceError: the simulator cannot be built, an address is outside the memory, or the run does not end.
        CompileError: a bandwidth of nothing.
    """
    core, behind = program.core, behind or Memory()
    rate = core.n if behind.bytes_per_cycle is None else behind.bytes_per_cycle
    setup = _Setup(behind.latency_cycles, round(rate * 256), most_cycles)
    if setup.bandwidth256 < 1:
        raise CompileError(f"a memory of {rate} bytes a cycle never answers", hint="at least 1/256 byte a cycle")
    words = np.ascontiguousarray(program.words())
    after = memory.astype(np.int8, copy=True)
    counts = _Counts()
    records = np.zeros((len(words) + 1, 3), np.uint64)
    status = _library(core).run(
        _at(words), ctypes.c_uint64(len(words)), _at(after), ctypes.c_uint64(after.size), ctypes.byref(setup),
        ctypes.byref(counts), _at(records),
    )  # fmt: skip
    if status:
        raise _failure(status, core, words, counts, records)
    stalls = dict(zip(_ACTIVITIES, counts.activity, strict=True))
    busy = stalls.pop("working")
    return Simulation(
        after, counts.cycles, busy, counts.bytes_read, counts.bytes_written, stalls,
        tuple(Timing(*map(int, record)) for record in records[:-1]),
    )  # fmt: skip


def _failure(
    status: int, core: Core, words: NDArray[np.uint32], counts: _Counts, records: NDArray[np.uint64]
) -> DeviceError:
    where = f"the simulated {core.label} core"
    if status == 1:
        return DeviceError(f"{where} reached for byte {counts.wrong_address}, which its memory does not have")
    left = [index for index, end in enumerate(records[:-1, 1]) if not end]
    at = f" at command {left[0]}, a {UNITS[int(words[left[0], 0]) & 3]}" if left else ""
    what = "stands still" if status == 2 else "has not ended in the cycles that were allowed"
    return DeviceError(f"{where} {what}{at}; {len(left)} of {len(words)} commands are left")


def _at(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


@functools.cache
def _library(core: Core) -> ctypes.CDLL:
    library = ctypes.CDLL(str(build(core)))
    library.run.restype = ctypes.c_int
    return library


def build(core: Core, *, bus: bool = False) -> Path:
    """The simulator of a core as a shared library, made where it is not in the cache.

    Args:
        core: Its parameters.
        bus: With the registers and the memory ports that a board's bus has (`sim/axi_harness.cpp`), instead of the
            bare core (`sim/harness.cpp`).

    Raises:
        DeviceError: Verilator or a C++ compiler is missing or too old; the hint says how to install them.
        StorageError: the cache cannot be written.
    """
    verilator, compiler = shutil.which("verilator"), shutil.which("g++") or shutil.which("c++")
    if verilator is None or compiler is None:
        missing = "Verilator" if verilator is None else "a C++ compiler"
        raise DeviceError(f"{missing} is not here, so the core cannot be simulated", hint=INSTALL)
    folder = devices_folder() / "fpga"
    sources = sources_of(folder, bus=bus)
    harness = folder / "sim" / ("axi_harness.cpp" if bus else "harness.cpp")
    parts = [path.read_bytes() for path in (*sources, harness)]
    parts += [repr((core.parameters(), _FLAGS)).encode(), _said(verilator, "--version"), _said(compiler, "--version")]
    digest = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
    top = _TOPS[bus]
    built = cache_folder() / "fpga" / f"{top}-{core.label}-{digest}.so"
    if not built.is_file():
        with _alone(built.with_suffix(".lock")):
            if not built.is_file():
                _make(core, top, (verilator, compiler), [*sources, harness], built)
    return built


def sources_of(folder: Path, *, bus: bool = False) -> list[Path]:
    """The hardware's files, with or without its side to a bus; the package of types first as every tool wants it."""
    first = folder / "rtl" / "core_types.sv"
    files = {path for path in first.parent.glob("*.*v") if bus or not path.name.startswith("axi_")}
    return [first, *sorted(files - {first})]


def _make(core: Core, top: str, tools: tuple[str, str], sources: Sequence[Path], built: Path) -> None:
    (verilator, compiler), (*hardware, harness) = tools, sources
    with partial_folder(built.parent) as folder:
        parameters = [f"-G{key}={value}" for key, value in core.parameters().items()]
        words = [verilator, "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert"]
        words += ["--top-module", top, "--prefix", "Vcore", "--Mdir", str(folder), *parameters, *map(str, hardware)]
        _run(words, "Verilator")
        root = Path(_said(verilator, "--getenv", "VERILATOR_ROOT").decode().strip()) / "include"
        runtime = [root / "verilated.cpp", root / "verilated_threads.cpp"]
        files = [harness, *sorted(folder.glob("*.cpp")), *runtime]
        made = folder / "core.so"
        includes = [f"-I{path}" for path in (folder, root, root / "vltstd")]
        _run([compiler, *_FLAGS, f"-DN={core.n}", *includes, *map(str, files), "-pthread", "-o", str(made)], "g++")
        made.replace(built)


def _run(words: Sequence[str], what: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise DeviceError(
            f"{what} could not build the simulated core (status {done.returncode})",
            hint=f"{INSTALL}; edgeprune is tested with Verilator 5.006",
            detail=done.stderr[-4000:],
        )


def _said(*words: str) -> bytes:
    try:
        return subprocess.run(words, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceError(f"{words[0]} does not run", hint=INSTALL, detail=str(error)) from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process builds, the others wait for what it made."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StorageError(f"{lock.parent} cannot be written: {error}", hint="set EDGEPRUNE_CACHE") from error
