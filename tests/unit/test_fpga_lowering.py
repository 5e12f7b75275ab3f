"""What the accelerator's compiler refuses, and how it encodes, cuts up and scales."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.compiling.fpga.commands import Compute, Load, Output, Store, encode
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.layers import Layer, pack, scaled, unpack
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.places import Ring, Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.errors import CompileError
from tests.fpga_layers import random_layer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [0, 2, 3, 6, 12, 24, 128])
def test_an_array_that_is_no_power_of_two_is_refused(n: int) -> None:
    with pytest.raises(CompileError, match=f"{n} x {n}"):
        Core(n)


@pytest.mark.parametrize("words", [0, 8, 1000, 1 << 17])
def test_a_buffer_of_odd_size_is_refused(words: int) -> None:
    with pytest.raises(CompileError, match=f"acc_words={words}"):
        Core(acc_words=words)


def lower(core: Core, layer: Layer, rows: int, columns: int) -> Program:
    lowering = Lowering(Program(core))
    source = Tensor(layer.in_channels, rows, columns, memory=0)
    lowering.add(layer, source, Tensor(layer.out_channels, *layer.picture(rows, columns), memory=1 << 24))
    return lowering.program


def test_a_row_that_fits_no_buffer_is_refused() -> None:
    layer = random_layer(RNG, 8, 8, (7, 7), padding=(3, 3, 3, 3))
    with pytest.raises(CompileError, match="words of input for one row"):
        lower(Core(8), layer, 700, 700)
    with pytest.raises(CompileError, match="a row of 1500 pixels"):
        lower(Core(8), random_layer(RNG, 8, 8, (1, 1)), 4, 1500)
    with pytest.raises(CompileError, match="a kernel of 40 columns"):
        lower(Core(8, w_words=256), random_layer(RNG, 8, 8, (1, 40)), 4, 60)


@pytest.mark.parametrize("n", [8, 16])
@pytest.mark.parametrize("shape", [(64, 64, 56, 3), (256, 256, 7, 3), (3, 64, 112, 7), (16, 16, 224, 5)])
def test_every_output_pixel_is_computed_and_stored_once(n: int, shape: tuple[int, int, int, int]) -> None:
    inner, out, size, kernel = shape
    half = kernel // 2
    program = lower(Core(n), random_layer(RNG, out, inner, (kernel, kernel), padding=(half,) * 4), size, size)
    planes = Core(n).planes(out)
    computes = [command for command in program.commands if isinstance(command, Compute)]
    passes = Core(n).planes(inner) * kernel * kernel
    assert sum(command.passes * command.pixels for command in computes) == planes * passes * size * size
    stored = np.zeros(planes * size * size, int)
    for command in program.commands:
        if isinstance(command, Store):
            first = (command.memory - (1 << 24)) // n
            stored[first : first + command.total_words] += 1
    assert (stored == 1).all()


def test_weights_that_fit_are_loaded_once() -> None:
    program = lower(Core(8), random_layer(RNG, 16, 16, (3, 3), padding=(1, 1, 1, 1)), 64, 64)
    loads = [command for command in program.commands if isinstance(command, Load) and command.buffer == "w"]
    assert len(loads) == 1
    assert sum(isinstance(command, Compute) for command in program.commands) > 2


def test_a_command_that_leaves_its_buffer_is_refused() -> None:
    program = Program(Core(8, a_words=64))
    with pytest.raises(CompileError, match="buffer 'a' of 64 words"):
        program.add(Load("a", 0, 60, 5))
    with pytest.raises(CompileError, match="does not fit 32 bits"):
        program.add(Load("w", 1 << 32, 0, 1))


def test_a_compute_that_overwrites_its_own_input_is_refused() -> None:
    program = Program(Core(8))
    with pytest.raises(CompileError, match="that it reads"):
        program.add(Compute(0, 4, 4, 4, 4, 4, 0, output=Output(to_a=8)))
    with pytest.raises(CompileError, match="that it reads"):
        program.add(Compute(0, 4, 4, 4, 4, 4, 0, output=Output(to_r=8, skip=4)))
    program.add(Compute(0, 4, 4, 4, 4, 4, 0, output=Output(to_r=4, skip=4)))


def test_shapes_that_do_not_fit_each_other_are_refused() -> None:
    lowering, layer = Lowering(Program(Core(8))), random_layer(RNG, 8, 8, (3, 3))
    source, target = Tensor(8, 9, 9, memory=0), Tensor(8, 7, 7, memory=1 << 16)
    for wrong in (Tensor(8, 9, 9, memory=0), Tensor(9, 7, 7, memory=0), Tensor(8, 7, 7)):
        with pytest.raises(CompileError):
            lowering.add(layer, source, wrong)
    with pytest.raises(CompileError, match="addition"):
        lowering.add(layer, source, target, Tensor(8, 7, 7, memory=0))
    with pytest.raises(CompileError, match="smaller than the kernel"):
        layer.picture(2, 9)


def test_a_command_is_sixteen_words_of_documented_fields() -> None:
    words = encode(Load("w", 0x12340, 0x55, 7, 3, 0x100, 2, 0x2000), (1, 2, 3))
    assert words[:7].tolist() == [1 << 16 | 2 << 2, 3 << 16 | 2, 0x12340, 7 << 16 | 0x55, 2 << 16 | 3, 0x100, 0x2000]
    words = encode(Compute(100, 10, 10, 10, 8, 8, 0, kernel=(3, 3), first_row=-1, first_column=-1), (0, 0, 0))
    assert words[2] & 0xFFFF == 100 - 10 - 1
    assert words[3] >> 16 == 9
    assert words[6] == 0xFFFFFFFF


@pytest.mark.parametrize("factor", [1e-9, 3.7e-5, 0.25, 0.999999, 1.0, 17.3, 16383.0])
def test_a_factor_is_kept_to_31_bits(factor: float) -> None:
    found = scaled(np.array([factor]))
    assert abs(int(found.multiplier[0]) / 2 ** int(found.shift[0]) / factor - 1) < 2**-30


def test_factors_out_of_range_are_refused_or_nothing() -> None:
    for wrong in (np.nan, np.inf, -1.0, 2.0**14):
        with pytest.raises(CompileError):
            scaled(np.array([wrong]))
    assert scaled(np.array([1e-12, 0.0])).multiplier.tolist() == [0, 0]


def test_packing_is_undone() -> None:
    tensor = RNG.integers(-128, 128, (13, 5, 6), dtype=np.int8)
    words = pack(tensor, 8)
    assert words.shape == (2, 5, 6, 8)
    np.testing.assert_array_equal(unpack(words, 13), tensor)


def test_a_ring_gives_its_words_in_turn() -> None:
    ring = Ring(100, 10)
    assert [ring.take(4) for _ in range(3)] == [100, 104, 100]
    with pytest.raises(CompileError):
        ring.take(11)
