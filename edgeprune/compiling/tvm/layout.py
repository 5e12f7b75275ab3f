"""How a tensor lies in memory: channels last, stored up to a full vector, so that no kernel ever sees a ragged end.

An image `[N, C, H, W]` is stored `[N, H, W, S]` and a matrix `[M, C]` as `[1, 1, M, S]`: both are rows of channels, and
one convolution schedule serves both. S is C rounded up to the vector (13 channels are stored as 16). Convolutions read
only the true channels, so the padding costs no arithmetic beyond the vector that is needed anyway. What lies behind the
true channels is never read as a channel. Start with `Stored`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import relax


@dataclass(frozen=True)
class Stored:
    """A tensor of the network in its stored form.

    Attributes:
        value: Relax expression, float32 [N, H, W, S] with S >= channels.
        channels: True channels C.
        rank: Dimensions of the tensor in the ONNX file: 4, or 2 for a matrix.
    """

    value: relax.Expr
    channels: int
    rank: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The stored shape (N, H, W, S)."""
        n, h, w, s = (int(extent) for extent in self.value.ty.shape)
        return n, h, w, s


def vector_lanes(channels: int, lanes: int) -> int:
    """The vector width used for so many channels: the target's, or the narrowest of at least 4 that holds them all."""
    while lanes > 4 and channels <= lanes // 2:
        lanes //= 2
    return lanes


def stored_channels(channels: int, lanes: int) -> int:
    """Channels a tensor is stored with.

    >>> stored_channels(13, 16), stored_channels(49, 16), stored_channels(5, 16)
    (16, 64, 8)
    """
    width = vector_lanes(channels, lanes)
    return -(-channels // width) * width


def whole_width(width: int, lanes: int) -> int:
    """The least number of filters a group, at least so many, with which groups fill vectors or vectors hold groups.

    >>> whole_width(3, 16), whole_width(9, 16), whole_width(17, 16), whole_width(17, 4)
    (4, 16, 32, 20)
    """
    return 1 << (width - 1).bit_length() if width < lanes else -(-width // lanes) * lanes
