"""The accelerator behind a board's bus gives the same as without one, driven by the board's own driver."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from edgeprune.compiling import fpga
from edgeprune.compiling.fpga import simulator
from edgeprune.compiling.fpga.build import build as compile_for
from edgeprune.compiling.fpga.commands import Load, Store
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.meaning import execute
from edgeprune.compiling.fpga.places import Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.resources import devices_folder
from tests.fpga_layers import random_layer
from tests.fpga_networks import Net, int8
from tests.fpga_streams import random_stream

CORE = Core(4)
BASE = 0x4_2000_0000  # beyond 32 bits
PAGE = 4096


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    missing = [name for name in ("verilator", "g++") if shutil.which(name) is None]
    if missing:
        words = f"{' and '.join(missing)} missing: apt install verilator g++"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)


@functools.cache
def driver() -> ModuleType:
    """The file as it is copied to a board."""
    path = devices_folder() / "fpga" / "board" / "accelerator.py"
    spec = importlib.util.spec_from_file_location("accelerator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accelerator"] = module
    spec.loader.exec_module(module)
    return module


class _Setup(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_uint64), ("latency", ctypes.c_uint64),
        ("seed", ctypes.c_uint32), ("stall256", ctypes.c_uint32),
    )  # fmt: skip


class Registers:
    """Those of the simulated board, as PYNQ's `MMIO` gives those of a real one."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self.library, self.handle = library, ctypes.c_void_p(handle)

    def read(self, offset: int) -> int:
        self.library.board_pass(self.handle, ctypes.c_uint64(200))
        return int(self.library.board_read(self.handle, offset))

    def write(self, offset: int, value: int) -> None:
        self.library.board_write(self.handle, offset, ctypes.c_uint32(value))

    def fault(self) -> str:
        return str(self.library.board_fault(self.handle).decode())


@contextmanager
def board(core: Core, memory: np.ndarray, *, latency: int, stall256: int, seed: int = 0) -> Iterator[Registers]:
    library = ctypes.CDLL(str(simulator.build(core, bus=True)))
    library.board_open.restype = ctypes.c_void_p
    library.board_fault.restype = ctypes.c_char_p
    library.board_read.restype = ctypes.c_uint32
    setup = _Setup(BASE, latency, seed, stall256)
    handle = library.board_open(
        memory.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(memory.size), ctypes.byref(setup)
    )
    registers = Registers(library, handle)
    try:
        yield registers
    finally:
        library.board_close(registers.handle)


def image(program: Program, memory: np.ndarray) -> tuple[np.ndarray, int]:
    """The board's memory: the image, then the commands; and where these begin."""
    words = program.words().view(np.int8).reshape(-1)
    begin = -(-memory.size // PAGE) * PAGE
    whole = np.zeros(begin + words.size, np.int8)
    whole[: memory.size], whole[begin:] = memory, words
    return whole, begin


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("latency", "stall256"), [(30, 0), (5, 90), (60, 200)], ids=["even", "uneven", "awkward"])
def test_a_random_stream_does_what_its_commands_say(seed: int, latency: int, stall256: int) -> None:
    program, memory = random_stream(CORE, seed)
    whole, begin = image(program, memory)
    with board(CORE, whole, latency=latency, stall256=stall256, seed=seed) as registers:
        counters = driver().Accelerator(registers).run(BASE + begin, len(program.commands), BASE)
        assert registers.fault() == ""
    np.testing.assert_array_equal(whole[: memory.size], execute(CORE, program.commands, memory))
    transfers = [command for command in program.commands if isinstance(command, Load | Store)]
    loaded = sum(command.total_words for command in transfers if isinstance(command, Load)) * CORE.n
    moved = sum(command.total_words for command in transfers) * CORE.n
    assert (counters.bytes_read, counters.bytes_written) == (loaded, moved - loaded)
    assert counters.cycles >= sum(counters.activity.values()) - 1 > counters.activity["working"] > 0


def layer_stream(seed: int) -> tuple[Program, np.ndarray]:
    """A convolution from memory to memory, and the memory."""
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, 12, 9, (3, 3), padding=(1, 1, 1, 1))
    source, target = Tensor(9, 14, 10, memory=0), Tensor(12, 14, 10, memory=PAGE)
    lowering = Lowering(Program(CORE), weights_at=2 * PAGE)
    lowering.add(layer, source, target)
    weights = np.concatenate(lowering.weights)
    return lowering.program, np.concatenate([rng.integers(-128, 128, 2 * PAGE, dtype=np.int8), weights])


def test_one_run_after_the_other_begins_anew() -> None:
    program, memory = layer_stream(0)
    whole, begin = image(program, memory)
    with board(CORE, whole, latency=20, stall256=60) as registers:
        accelerator = driver().Accelerator(registers)
        assert (accelerator.n, accelerator.buffers) == (CORE.n, CORE.buffers())
        for seed in (0, 1, 2):
            _, memory = layer_stream(seed)
            whole[: memory.size] = memory
            accelerator.run(BASE + begin, len(program.commands), BASE)
            np.testing.assert_array_equal(whole[: memory.size], execute(CORE, program.commands, memory))
        assert registers.fault() == ""


def test_the_page_makes_the_files_for_a_board(tmp_path: Path) -> None:
    page = (devices_folder() / "fpga" / "board" / "README.md").read_text()
    section = page.partition("## 2.")[2].partition("## 3.")[0]
    lines = [line.removeprefix("    ") for line in section.splitlines() if line.startswith("    ")]
    net = Net(1, 5, 12, 12)
    onnx.save(net.model(net.conv("input", 13, 5)), tmp_path / "model.onnx")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(4, 5, 12, 12)).astype(np.float32))
    given = ["import numpy", "images = numpy.load('images.npy')", "image = images[0]"]
    (tmp_path / "page.py").write_text("\n".join([*given, *lines]) + "\n")
    subprocess.run([sys.executable, "page.py"], cwd=tmp_path, check=True)
    memory, after = (np.fromfile(tmp_path / name, np.int8) for name in ("memory.bin", "expected.bin"))
    assert memory.size == after.size
    assert (memory != after).any()
    assert "`made/core_1.commands`" in section
    assert (tmp_path / "made" / "core_1.commands").stat().st_size % 64 == 0


def test_a_network_runs_on_the_board(tmp_path: Path) -> None:
    net = Net(1, 5, 12, 12)
    int8_file = int8(tmp_path, net, net.node("Relu", net.conv(net.node("Relu", net.conv("input", 13, 5)), 6, 13)))
    compiled = compile_for(int8_file, tmp_path, CORE, threads=1)
    done = fpga.Network(tmp_path / compiled.model).run({"input": np.ones((1, 5, 12, 12), np.float32)})
    words = np.fromfile(tmp_path / "core_1.commands", "<u4")
    (memory,), (simulation,) = done.images, done.simulations
    begin = -(-memory.size // PAGE) * PAGE
    whole = np.concatenate([memory, np.zeros(begin - memory.size, np.int8), words.view(np.int8)])
    with board(CORE, whole, latency=30, stall256=60) as registers:
        counters = driver().Accelerator(registers).run(BASE + begin, words.size // 16, BASE)
        assert registers.fault() == ""
    np.testing.assert_array_equal(whole[: memory.size], simulation.memory)
    assert (whole[: memory.size] != memory).any()
    assert counters.activity["working"] == simulation.busy_cycles


def test_what_the_driver_refuses() -> None:
    program, memory = random_stream(CORE, 0)
    program._words[3][0] |= 0x4000 << 16  # 16384 loads that nobody gave
    whole, begin = image(program, memory)
    with board(CORE, whole, latency=20, stall256=0) as registers:
        accelerator = driver().Accelerator(registers)
        with pytest.raises(driver().BoardError, match="multiples of 64"):
            accelerator.run(BASE + begin + 4, 1, BASE)
        with pytest.raises(driver().BoardError, match="has not ended"):
            accelerator.run(BASE + begin, len(program.commands), BASE, patience_s=0.2)
        with pytest.raises(driver().BoardError, match="is under way"):
            accelerator.run(BASE + begin, 1, BASE)

    class Nothing:
        def read(self, offset: int) -> int:
            return offset

    with pytest.raises(driver().BoardError, match="is its bitstream loaded"):
        driver().Accelerator(Nothing())


def test_the_driver_reads_and_writes_a_mapped_file(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "mem")
    with open(path, "wb") as file:
        file.write(bytes(2 * PAGE))
    mapped = driver().Mapped(PAGE, PAGE, path)
    mapped.write(0x18, 0x12345678)
    mapped.bytes[0x20:0x24] = b"abcd"
    assert mapped.read(0x18) == 0x12345678
    with open(path, "rb") as file:
        assert file.read()[PAGE + 0x18 : PAGE + 0x24] == b"\x78\x56\x34\x12\0\0\0\0abcd"


@pytest.mark.parametrize("n", [4, 8, 16, 64])
def test_the_hardware_is_free_of_lint(n: int) -> None:
    sources = simulator.sources_of(devices_folder() / "fpga", bus=True)
    words = ["verilator", "--lint-only", "-Wall", f"-GN={n}", "--top-module", "axi_core", *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
