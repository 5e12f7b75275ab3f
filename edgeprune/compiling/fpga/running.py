"""A compiled network on the simulated core, with its host parts in ONNX Runtime. Start with `run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.compiling.fpga.commands import UNITS
from edgeprune.compiling.fpga.geometry import Core, Memory
from edgeprune.compiling.fpga.layers import ColumnFold, Int8, pack, unpack
from edgeprune.compiling.fpga.simulator import INSTALL, Simulation, build, simulate
from edgeprune.compiling.fpga.staircase import staircase
from edgeprune.errors import CompileError, DeviceError
from edgeprune.resources import devices_folder

_COMPUTE, _LOAD, _STORE = UNITS.index("compute"), UNITS.index("load"), UNITS.index("store")


@dataclass(frozen=True)
class StoredProgram:
    """Commands as they were stored."""

    core: Core
    stored: NDArray[np.uint32]

    def words(self) -> NDArray[np.uint32]:
        """uint32 [commands, 16]."""
        return self.stored


@dataclass(frozen=True)
class LayerFigures:
    """One layer's part of a run.

    Attributes:
        name: The ONNX nodes that it is.
        operator: What they do.
        macs: Multiply-adds that the network means.
        in_channels, out_channels, rows, columns: Of its input, and of its output.
        cycles: From the last word of the layers before to its own last word.
        stall_cycles: In which the array stood still for it.
        bytes_moved: Between core and memory.
    """

    name: str
    operator: str
    macs: int
    in_channels: int
    out_channels: int
    rows: int
    columns: int
    cycles: int
    stall_cycles: int
    bytes_moved: int


@dataclass(frozen=True)
class Figures:
    """What one inference takes on the core.

    Attributes:
        cycles: Of all regions, one after the other; the host's time is not in it.
        busy_cycles: In which all multipliers had an activation, of use or padding.
        bytes_read, bytes_written: Between core and memory.
        stalls: Cycles in which the array stood still, by what it waited for.
        macs: Multiply-adds that the core does of those that the network means.
        multipliers: Of the array.
        layers: In order.
    """

    cycles: int
    busy_cycles: int
    bytes_read: int
    bytes_written: int
    stalls: dict[str, int]
    macs: int
    multipliers: int
    layers: tuple[LayerFigures, ...]

    @property
    def utilisation(self) -> float:
        """The network's multiply-adds a cycle, over the array's multipliers."""
        return self.macs / (self.multipliers * self.cycles)


@dataclass(frozen=True)
class Run:
    """One inference.

    Attributes:
        outputs: By name.
        images: int8 [bytes] each: the memory before each of the network's streams (`core_*.commands`).
        simulations: Of each stream, with the memory after it.
        figures: What it took.
    """

    outputs: dict[str, NDArray[Any]]
    images: tuple[Int8, ...]
    simulations: tuple[Simulation, ...]
    figures: Figures


def facts_of(core: Core) -> dict[str, Any]:
    """What the simulated device of a core says of itself; the simulator is built if it is not in the cache.

    `staircase` is what a layer costs at every width (`staircase.py`); `fmax_mhz` is there for a core that was placed
    and routed (`devices/fpga/synthesis`).

    Raises:
        DeviceError: Verilator or a C++ compiler is missing or does not build it; the hint says how to install them.
    """
    said = simulator_version()
    build(core)
    memory = Memory()
    return {
        "core": f"{core.label} int8 multipliers, buffers of {core.a_words}, {core.r_words} and {core.w_words} words",
        "word_bytes": core.n,
        "memory": f"latency {memory.latency_cycles} cycles, {core.n} bytes a cycle",
        "simulator": said,
        "staircase": staircase(core),
        **_routed(core),
    }


def _routed(core: Core) -> dict[str, Any]:
    """The clock that place and route found for a core, and on what; nothing where nobody has tried."""
    report = devices_folder() / "fpga" / "synthesis" / "reports.json"
    if not report.is_file():
        return {}
    routed = json.loads(report.read_text()).get("routed", {})
    if routed.get("n") != core.n:
        return {}
    return {"fmax_mhz": routed["fmax_mhz"], "fmax_of": f"{routed['device']}, speed grade {routed['speed_grade']}"}


def simulator_version() -> str:
    """The version of Verilator that is here.

    Raises:
        DeviceError: it or a C++ compiler is not here, or does not run.
    """
    missing = [name for name in ("verilator", "g++") if shutil.which(name) is None]
    if missing:
        raise DeviceError(f"{' and '.join(missing)} not here, so cores cannot be simulated", hint=INSTALL)
    try:
        done = subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError("verilator does not run", hint=INSTALL, detail=str(error)) from error
    return done.stdout.strip()


class Network:
    """A compiled network, loaded.

    Args:
        model: Its `network.json`, the other files beside it.

    Raises:
        CompileError: a file is missing or damaged.
    """

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        try:
            self._fields: dict[str, Any] = json.loads(model.read_text())
            self.core = Core(**self._fields["core"])
            self._steps: list[dict[str, Any]] = self._fields["steps"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CompileError(
                f"{model} is missing or damaged", hint="compile the network again", detail=str(error)
            ) from error

    @cached_property
    def _sessions(self) -> dict[str, Any]:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, at import
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        files = [step["file"] for step in self._steps if step["kind"] == "host"]
        return {
            file: onnxruntime.InferenceSession(
                str(self._folder / file), options, providers=["CPUExecutionProvider"]
            )
            for file in files
        }  # fmt: skip

    def run(self, inputs: dict[str, NDArray[Any]], behind: Memory | None = None) -> Run:
        """One inference.

        Args:
            inputs: The network's, by name.
            behind: The memory of the core.

        Raises:
            DeviceError: the simulator cannot be built or stands still.
        """
        known, images, simulations, layers = dict(inputs), [], [], []
        for step in self._steps:
            if step["kind"] == "host":
                session = self._sessions[step["file"]]
                feeds = {name: known[name] for name in step["inputs"]}
                known |= dict(zip(step["outputs"], session.run(step["outputs"], feeds), strict=True))
            else:
                words = np.fromfile(self._folder / step["commands"], "<u4").reshape(-1, 16)
                memory = self._image(step, known)
                done = simulate(StoredProgram(self.core, words), memory, behind)
                known |= {port["name"]: _taken(port, done.memory, self.core) for port in step["outputs"]}
                images.append(memory)
                simulations.append(done)
                layers += _layers(step["layers"], words, done, self.core)
        outputs = {name: known[name] for name in self._steps[-1]["outputs"]}
        return Run(outputs, tuple(images), tuple(simulations), _figures(self.core, simulations, layers))

    def _image(self, step: dict[str, Any], known: dict[str, NDArray[Any]]) -> Int8:
        """The core's memory before a stream: inputs and weights in their places."""
        weights = np.fromfile(self._folder / step["weights"], np.int8)
        memory = np.zeros(step["weights_at"] + weights.size, np.int8)
        memory[step["weights_at"] :] = weights
        for port in step["inputs"]:
            packed = pack(_laid(port, known[port["name"]]), self.core.n).reshape(-1)
            memory[port["address"] : port["address"] + packed.size] = packed
        return memory


def _laid(port: dict[str, Any], tensor: NDArray[Any]) -> Int8:
    picture = tensor.reshape(port["channels"], port["rows"], port["columns"]).astype(np.int8, copy=False)
    return picture if port["fold"] is None else ColumnFold(**port["fold"]).apply(picture)


def _taken(port: dict[str, Any], memory: Int8, core: Core) -> Int8:
    shape = (core.planes(port["channels"]), port["rows"], port["columns"], core.n)
    size = int(np.prod(shape))
    picture = unpack(memory[port["address"] : port["address"] + size].reshape(shape), port["channels"])
    return picture.reshape(1, -1) if port["rank"] == 2 else picture[None]


def _layers(
    layers: Sequence[dict[str, Any]], words: NDArray[np.uint32], done: Simulation, core: Core
) -> list[LayerFigures]:
    """Cycles, stalls and bytes of each layer, from the times and the words of its commands."""
    units = words[:, 0] & 3
    moved = (words[:, 3] >> 16).astype(np.int64) * (words[:, 4] & 0xFFFF) * (words[:, 4] >> 16) * core.n
    moved[units == _COMPUTE] = 0
    found, begin, time = [], 0, 0
    for layer in layers:
        timings = done.timings[begin : layer["end"]]
        ended = max([time, *(timing.end for timing in timings)])
        fields = {key: value for key, value in layer.items() if key != "end"}
        stalls = sum(timing.stall_cycles for timing in timings)
        moving = int(moved[begin : layer["end"]].sum())
        found.append(LayerFigures(**fields, cycles=ended - time, stall_cycles=stalls, bytes_moved=moving))
        begin, time = layer["end"], ended
    return found


def _figures(core: Core, simulations: Sequence[Simulation], layers: Sequence[LayerFigures]) -> Figures:
    stalls: Counter[str] = Counter()
    for one in simulations:
        stalls.update(one.stalls)
    return Figures(
        cycles=sum(one.cycles for one in simulations),
        busy_cycles=sum(one.busy_cycles for one in simulations),
        bytes_read=sum(one.bytes_read for one in simulations),
        bytes_written=sum(one.bytes_written for one in simulations),
        stalls=dict(stalls),
        macs=sum(layer.macs for layer in layers),
        multipliers=core.n * core.n,
        layers=tuple(layers),
    )
