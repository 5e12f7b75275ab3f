"""The words of the analysis: what is known of each channel of a tensor, and what its readers ask of it.

Start with `Demand` (asked of a tensor by its readers) and `Decision` (what the tensor then does). Every array here has
one entry a channel of the masked network's tensor; which axis holds the channels, its `forms.Form` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import fx

Vector = npt.NDArray[np.float64]
"""float64 [C]: the channel's value where it is the same for every input and every pixel, NaN where it varies."""

Flags = npt.NDArray[np.bool_]
"""bool [C]."""

Layout = npt.NDArray[np.int64]
"""int64 [C_kept]: which channel of the masked tensor stands at each place of the shrunk one."""


class Demand(NamedTuple):
    """What readers ask of a tensor.

    Attributes:
        value: The channel's value matters; a constant may be folded into the reader instead of being kept.
        merge: The value matters to a reader that adds up its inputs. What can not be folded into a bias, such as a
            nonzero constant in front of a zero border, can be merged there into one kept multiple of it.
        physical: The channel must be there, whatever it holds.
        present: The tensor must be there, with any channel.
    """

    value: Flags
    merge: Flags
    physical: Flags
    present: bool = False

    @classmethod
    def nothing(cls, channels: int) -> Demand:
        """The demand of no reader at all."""
        none = np.zeros(channels, dtype=np.bool_)
        return cls(none, none, none)

    @classmethod
    def everything(cls, channels: int) -> Demand:
        """The demand of a reader of which nothing is known: every channel, as it is."""
        full = np.ones(channels, dtype=np.bool_)
        return cls(value=full, merge=np.zeros_like(full), physical=full, present=True)

    @classmethod
    def of(
        cls, value: Flags, *, merge: Flags | None = None, physical: Flags | None = None, present: bool = False
    ) -> Demand:
        """A demand for values, with nothing asked that is not given."""
        none = np.zeros(len(value), dtype=np.bool_)
        return cls(value, none if merge is None else merge, none if physical is None else physical, present)

    def __or__(self, other: Demand) -> Demand:
        return Demand(
            self.value | other.value,
            self.merge | other.merge,
            self.physical | other.physical,
            self.present or other.present,
        )


class Decision(NamedTuple):
    """What becomes of a tensor.

    Attributes:
        keep: Channels that are there in the shrunk network.
        valued: Channels whose value matters. A kept channel that is not valued may hold any finite number.
        carriers: For each pattern the kept channel that stands for the removed multiples of it (`Multiples`).
        live: The tensor exists in the shrunk network.
        sized_by: If given, the tensor holds numbers alone, and its sizes follow from those of this node (`settled`).
    """

    keep: Flags
    valued: Flags
    carriers: Mapping[int, int]
    live: bool
    sized_by: fx.Node | None = None

    @property
    def exact(self) -> Flags:
        """Kept channels that hold the same values as in the masked network."""
        return self.keep & self.valued


def varies(constants: Vector) -> Flags:
    """Channels that depend on the input or on the place in the image."""
    return np.isnan(constants)


def nonzero_constant(constants: Vector) -> Flags:
    """Channels that are one known number other than zero."""
    nonzero: Flags = (constants != 0.0) & (constants == constants)  # NaN differs from itself
    return nonzero


def unknown(channels: int) -> Vector:
    """Nothing is known of any channel."""
    return np.full(channels, np.nan)
