"""The size of a core and of the memory behind it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.errors import CompileError

_MOST_WORDS = 1 << 16
PARAMETER_WORDS = 9  # of one output plane: four of biases, four of multipliers, one of shifts


@dataclass(frozen=True)
class Core:
    """An N x N core; a word is N bytes, one value of each of N channels at one pixel.

    Args:
        n: Input and output channels at once: a power of two from 4 to 64.
        a_words: Words of the activation buffer; all buffers are powers of two up to 65536.
        r_words: Words of the result buffer.
        w_words: Words of the weight buffer.
        acc_words: Pixels whose int32 sums are kept.

    Raises:
        CompileError: such a core cannot be built.

    >>> Core(16).label
    '16x16'
    """

    n: int = 8
    a_words: int = 4096
    r_words: int = 2048
    w_words: int = 2048
    acc_words: int = 1024

    def __post_init__(self) -> None:
        if not (4 <= self.n <= 64 and _is_power_of_two(self.n)):
            raise CompileError(f"an array of {self.n} x {self.n} cannot be built", hint="N is 4, 8, 16, 32 or 64")
        for name, words in self.buffers().items():
            if not (16 <= words <= _MOST_WORDS and _is_power_of_two(words)):
                raise CompileError(
                    f"a core with {name}={words} cannot be built", hint=f"a power of two from 16 to {_MOST_WORDS}"
                )

    def buffers(self) -> dict[str, int]:
        """Words of each buffer by the name of its parameter."""
        return {
            "a_words": self.a_words, "r_words": self.r_words, "w_words": self.w_words, "acc_words": self.acc_words,
        }  # fmt: skip

    def parameters(self) -> dict[str, int]:
        """The parameters of `core.sv`."""
        logs = {name.replace("words", "log2").upper(): words.bit_length() - 1 for name, words in self.buffers().items()}
        return {"N": self.n, **logs}

    @property
    def label(self) -> str:
        """How the array is named: `8x8`."""
        return f"{self.n}x{self.n}"

    def planes(self, channels: int) -> int:
        """Words that hold the channels of one pixel."""
        return -(-channels // self.n)


@dataclass(frozen=True)
class Memory:
    """The memory behind the core.

    Attributes:
        latency_cycles: From a read's request to its first word.
        bytes_per_cycle: What reads and writes share; None: one word of N bytes a cycle.
    """

    latency_cycles: int = 40
    bytes_per_cycle: float | None = None


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
