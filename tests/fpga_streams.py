"""Random streams of commands that overwrite each other's words, so that a wait that is missing shows."""

from __future__ import annotations

import numpy as np

from edgeprune.compiling.fpga.commands import Compute, Load, Output, Store
from edgeprune.compiling.fpga.geometry import PARAMETER_WORDS, Core
from edgeprune.compiling.fpga.program import Program
from edgeprune.errors import CompileError

LENGTH = 30
_SMALL = 600  # words of each buffer that are used: few, so that commands meet
_PARAMETERS = 1 << 17  # bytes from here on hold parameters, further than any store reaches
_RESULTS = 1 << 18
_BYTES = 1 << 19


class _Dice:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def maybe(self, low: int, high: int) -> int | None:
        return self(low, high) if self(0, 2) else None


def random_stream(core: Core, seed: int) -> tuple[Program, np.ndarray]:
    """A program that ends with storing all of `r`, and the memory it runs over."""
    dice = _Dice(seed)
    program, memory = Program(core), dice.rng.integers(-128, 128, _BYTES, dtype=np.int8)
    for buffer, words in (("a", core.a_words), ("r", core.r_words), ("w", core.w_words)):
        program.add(Load(buffer, dice(0, 100) * core.n, 0, words))  # type: ignore[arg-type]
    for _ in range(LENGTH):
        kind = dice(0, 10)
        if kind < 4:
            _transfer(program, dice, is_load=kind < 2)
        else:
            _compute(program, dice, memory)
    program.add(Store("r", _RESULTS, 0, core.r_words))
    return program, memory


def _transfer(program: Program, dice: _Dice, *, is_load: bool) -> None:
    n = program.core.n
    words, runs, planes = dice(1, 40), dice(1, 4), dice(1, 4)
    address = dice(0, _SMALL - words * runs * planes)
    where = (dice(0, 1000) * n, address, words, runs, dice(words, 60) * n, planes, dice(200, 400) * n)
    if is_load:
        program.add(Load("arw"[dice(0, 3)], *where))  # type: ignore[arg-type]
    else:
        program.add(Store("r", *where))


def _compute(program: Program, dice: _Dice, memory: np.ndarray) -> None:
    n = program.core.n
    rows, columns, planes, kernel = dice(1, 9), dice(1, 9), dice(1, 3), (dice(1, 4), dice(1, 4))
    pitch, diagonal = columns + dice(0, 3), bool(dice(0, 2))
    weights = planes * kernel[0] * kernel[1] * (1 if diagonal else n)
    w_address = dice(0, _SMALL - weights - PARAMETER_WORDS)
    output = None
    if dice(0, 3):
        output = Output(
            dice.maybe(0, 500), dice.maybe(0, 500), dice.maybe(0, 500), *(dice(-128, 128) for _ in range(3)),
            dice(0, 65536), dice(0, 65536), dice(1, 33), dice(-128, 0), dice(0, 128),
        )  # fmt: skip
        at = _PARAMETERS + dice(0, 1000) * PARAMETER_WORDS * n
        memory[at : at + PARAMETER_WORDS * n] = _parameters(dice, n)
        program.add(Load("w", at, w_address + weights, PARAMETER_WORDS))
    try:
        program.add(Compute(
            dice(0, 400), pitch, rows, columns, dice(1, 8), dice(1, 8), w_address, rows * pitch + dice(0, 30), planes,
            kernel, (dice(1, 3), dice(1, 3)), (dice(1, 3), dice(1, 3)), -dice(0, 3), -dice(0, 3), dice(-128, 128),
            diagonal, bool(dice(0, 2)), bool(dice(0, 2)), dice(0, 500), output,
        ))  # fmt: skip
    except CompileError as error:
        assert "that it reads" in error.message  # noqa: PT017 - any other refusal is this file's mistake


def _parameters(dice: _Dice, n: int) -> np.ndarray:
    bias = dice.rng.integers(-(1 << 20), 1 << 20, n, dtype=np.int32)
    multiplier = dice.rng.integers(0, 1 << 31, n).astype(np.int32)
    shift = dice.rng.integers(0, 48, n).astype(np.uint8)
    return np.concatenate([part.view(np.int8) for part in (bias, multiplier, shift)])
