"""The simulated accelerator does what its commands say: exactly, every kind of layer, whatever the memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.array_utilisation import resnet20
from edgeprune.compiling.fpga import simulator
from edgeprune.compiling.fpga.geometry import Core, Memory
from edgeprune.compiling.fpga.layers import Addition, Layer, addition, fold, folded, pooling
from edgeprune.compiling.fpga.meaning import execute
from edgeprune.compiling.fpga.simulator import simulate
from edgeprune.errors import DeviceError
from tests.fpga_layers import expected, random_layer, run
from tests.fpga_streams import random_stream

CORE = Core(8)
SAME = (1, 1, 1, 1)
FLOORS = {8: 0.985, 16: 0.975}  # of all multiply-adds that the arrays could have done, a little below what is reached


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    missing = [name for name in ("verilator", "g++") if shutil.which(name) is None]
    if missing:
        words = f"{' and '.join(missing)} missing: apt install verilator g++"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)


def case(name: str, rng: np.random.Generator) -> tuple[Layer, tuple[int, int, int]]:
    """A layer by name, and the shape of its input."""
    added = Addition(30000, 20000, 16, 5, -3)
    cases: dict[str, tuple[Layer, tuple[int, int, int]]] = {
        "3x3": (random_layer(rng, 16, 16, (3, 3), padding=SAME), (16, 12, 12)),
        "ragged channels": (random_layer(rng, 13, 5, (3, 3), padding=SAME), (5, 9, 11)),
        "7x7, stride 2": (random_layer(rng, 20, 3, (7, 7), padding=(3, 3, 3, 3), stride=(2, 2)), (3, 32, 32)),
        "1x1, stride 2": (random_layer(rng, 24, 17, (1, 1), stride=(2, 2)), (17, 15, 15)),
        "3x2, dilated, relu": (
            random_layer(rng, 8, 8, (3, 2), padding=(1, 0, 1, 1), low=0, dilation=(2, 1)), (8, 14, 13),
        ),
        "depthwise": (random_layer(rng, 19, 1, (3, 3), groups=19, padding=SAME), (19, 14, 13)),
        "grouped": (random_layer(rng, 24, 6, (3, 3), groups=4, padding=SAME), (24, 7, 7)),
        "max pooling": (pooling(19, (3, 3), stride=(2, 2), padding=SAME), (19, 14, 13)),
        "average pooling": (pooling(19, (7, 7), average=1 / 49, zero=3, padding_value=3), (19, 7, 7)),
        "linear": (random_layer(rng, 10, 64, (1, 1)), (64, 1, 1)),
        "linear after a picture": (random_layer(rng, 10, 32, (4, 4)), (32, 4, 4)),
        "with an addition": (random_layer(rng, 16, 16, (3, 3), padding=SAME, addition=added, low=-3), (16, 12, 12)),
        "addition": (addition(np.arange(20), 20, 7, added), (20, 6, 6)),
        "addition to some channels": (addition(np.array([1, 4, 5, 9, 20]), 21, 7, added), (5, 6, 6)),
        "in bands": (random_layer(rng, 32, 64, (3, 3), padding=SAME), (64, 20, 40)),
        "in chunks of weights": (random_layer(rng, 9, 160, (3, 3), padding=SAME), (160, 6, 6)),
        "in pieces of the input": (random_layer(rng, 9, 40, (3, 3), padding=SAME), (40, 4, 300)),
        "11x11": (random_layer(rng, 9, 3, (11, 11), stride=(4, 4), padding=(2, 2, 2, 2)), (3, 63, 63)),
    }  # fmt: skip
    return cases[name]


CASES = (
    "3x3", "ragged channels", "7x7, stride 2", "1x1, stride 2", "3x2, dilated, relu", "depthwise", "grouped",
    "max pooling", "average pooling", "linear", "linear after a picture", "with an addition", "addition",
    "addition to some channels", "in bands", "in chunks of weights", "in pieces of the input", "11x11",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layer_gives_what_arithmetic_says(name: str) -> None:
    rng = np.random.default_rng(len(name))
    layer, shape = case(name, rng)
    x, skip = operands(rng, layer, shape)
    result, _ = run(CORE, layer, x, skip)
    np.testing.assert_array_equal(result, expected(layer, x, skip))
    assert len(np.unique(result)) > 3, "a test of zeros"


@pytest.mark.parametrize("seed", range(12))
def test_a_layer_of_random_shape_gives_what_arithmetic_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    fields = {
        "stride": tuple(map(int, rng.integers(1, 4, 2))),
        "dilation": tuple(map(int, rng.integers(1, 3, 2))),
        "padding": tuple(map(int, rng.integers(0, 3, 4))),
        "low": int(rng.integers(-128, 0)),
        "high": int(rng.integers(1, 128)),
        "addition": Addition(*map(int, rng.integers(1, 65536, 2)), 16, *map(int, rng.integers(-9, 9, 2)))
        if seed % 2
        else None,
    }
    layer = random_layer(rng, int(rng.integers(1, 40)), int(rng.integers(1, 40)), kernel, **fields)
    x, skip = operands(rng, layer, (layer.in_channels, *map(int, rng.integers(9, 20, 2))))
    result, _ = run(CORE, layer, x, skip)
    np.testing.assert_array_equal(result, expected(layer, x, skip))


def test_a_first_layer_with_folded_columns_gives_the_same_in_fewer_cycles() -> None:
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 16, 3, (3, 3), padding=SAME, stride=(1, 2))
    x = rng.integers(-128, 128, (3, 20, 20), dtype=np.int8)
    result, done = run(CORE, folded(layer), fold(layer, x))
    np.testing.assert_array_equal(result, expected(layer, x))
    assert done.busy_cycles < run(CORE, layer, x)[1].busy_cycles


def operands(
    rng: np.random.Generator, layer: Layer, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    x = rng.integers(-128, 128, shape, dtype=np.int8)
    if layer.addition is None:
        return x, None
    return x, rng.integers(-128, 128, (layer.out_channels, *layer.picture(*shape[1:])), dtype=np.int8)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("behind", [Memory(40), Memory(3, 2.5), Memory(150, 16)], ids=["usual", "slow", "far"])
def test_a_random_stream_does_what_its_commands_say(seed: int, behind: Memory) -> None:
    program, memory = random_stream(CORE, seed)
    done = simulate(program, memory, behind)
    np.testing.assert_array_equal(done.memory, execute(CORE, program.commands, memory))
    assert done.cycles == done.busy_cycles + sum(done.stalls.values()) - 1


def test_a_slower_memory_costs_cycles_and_moves_as_many_bytes() -> None:
    program, memory = random_stream(CORE, 0)
    fast, slow = simulate(program, memory, Memory(10, 16)), simulate(program, memory, Memory(10, 0.5))
    assert slow.cycles > (slow.bytes_read + slow.bytes_written) / 0.5 > fast.cycles
    assert (slow.bytes_read, slow.bytes_written) == (fast.bytes_read, fast.bytes_written)
    assert slow.busy_cycles == fast.busy_cycles


def test_bytes_cycles_and_ends_of_commands_are_those_of_the_layer() -> None:
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 16, 16, (1, 1))
    _, done = run(CORE, layer, rng.integers(-128, 128, (16, 12, 12), dtype=np.int8))
    assert done.busy_cycles == 12 * 12 * 2 * 2
    assert done.bytes_read == 16 * 12 * 12 + layer.weights.size + 2 * 9 * 8
    assert done.bytes_written == 16 * 12 * 12
    assert max(timing.end for timing in done.timings) <= done.cycles
    assert sum(timing.stall_cycles for timing in done.timings) == sum(done.stalls.values()) - done.stalls["no_command"]


@pytest.mark.parametrize("n", [8, 16])
def test_resnet20_keeps_the_multipliers_at_work(n: int) -> None:
    stream = resnet20(Core(n))
    done = simulate(stream.program, stream.memory)
    np.testing.assert_array_equal(done.memory, execute(Core(n), stream.program.commands, stream.memory))
    assert FLOORS[n] < stream.utilisation(done) <= 1


def test_a_stream_that_waits_for_itself_is_told() -> None:
    program, memory = random_stream(CORE, 0)
    program._words[3][0] |= 0x4000 << 16  # 16384 loads that nobody gave
    with pytest.raises(DeviceError, match="stands still at command 3"):
        simulate(program, memory)


def test_an_address_outside_the_memory_is_told() -> None:
    program, memory = random_stream(CORE, 0)
    with pytest.raises(DeviceError, match="which its memory does not have"):
        simulate(program, memory[:4096])


def test_the_simulator_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = simulator.build(CORE)
    monkeypatch.setattr(simulator, "_make", lambda *_: pytest.fail("it was built again"))
    assert simulator.build(Core(8)) == built


def test_without_verilator_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="Verilator is not here") as caught:
        simulator.build(CORE)
    assert "apt install verilator" in str(caught.value.hint)


def test_a_verilator_that_does_not_understand_the_hardware_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of an older version says what it is, and then fails over the sources."""
    old = tmp_path / "verilator"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Verilator 3.1 && exit 0\necho %Error: syntax >&2\nexit 1\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match=r"Verilator could not build") as caught:
        simulator.build(CORE)
    assert "5.006" in str(caught.value.hint)
    assert "syntax" in str(caught.value.detail)
    assert [path.suffix for path in (tmp_path / "cache" / "fpga").iterdir()] == [".lock"]


@pytest.mark.parametrize("n", [4, 8, 16])
def test_the_hardware_is_free_of_lint(n: int) -> None:
    sources = simulator.sources_of(simulator.devices_folder() / "fpga")
    words = ["verilator", "--lint-only", "-Wall", f"-GN={n}", "--top-module", "core", *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
