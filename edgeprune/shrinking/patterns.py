"""Patterns: images that do not depend on the input, and the channels that are a known number times one of them.

A constant that meets a zero border (an average over a padded image, an explicit pad) is no constant any more, but all
constants of that tensor turn into multiples of one image, the pattern. A layer that adds up its inputs needs one of
them: the others merge into it, for any image size. Constants themselves are multiples of the pattern `ONE`.
Start with `Multiples`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import fx

from edgeprune.shrinking.channels import Flags, Layout, Vector, nonzero_constant, varies

ONE = 0
"""The pattern that is 1 everywhere."""

NONE = -1
"""The pattern of channels that are no multiple of any."""


@dataclass(frozen=True)
class Multiples:
    """Channels that are a known number times a pattern that does not depend on the input.

    Attributes:
        pattern: int64 [C]: which pattern, `ONE` for nonzero constants, `NONE` for zeros and all that depends on the
            input.
        coefficient: float64 [C]: how often; 0 where there is no pattern.
    """

    pattern: Layout
    coefficient: Vector

    @cached_property
    def patterned(self) -> Flags:
        """bool [C]: channels that are a multiple of some pattern."""
        return np.asarray(self.pattern != NONE, dtype=np.bool_)

    @cached_property
    def is_empty(self) -> bool:
        """Whether no channel is a multiple of any pattern."""
        return not self.patterned.any()

    @classmethod
    def of_one(cls, constants: Vector) -> Multiples:
        """Nonzero constants as multiples of `ONE`."""
        nonzero = nonzero_constant(constants)
        if not np.count_nonzero(nonzero):
            return _no_multiples(len(constants))
        return cls(np.where(nonzero, ONE, NONE), np.where(nonzero, constants, 0.0))

    def where_varying(self, constants: Vector) -> Multiples:
        """These multiples for the channels that vary, multiples of `ONE` for the constants."""
        moving, steady = varies(constants), Multiples.of_one(constants)
        return Multiples(
            np.where(moving, self.pattern, steady.pattern), np.where(moving, self.coefficient, steady.coefficient)
        )


@functools.lru_cache(maxsize=256)
def _no_multiples(channels: int) -> Multiples:
    """Most tensors' answer; nobody writes into it."""
    return Multiples(np.full(channels, NONE), np.zeros(channels))


@dataclass(frozen=True)
class Patterns:
    """Names the patterns: the same node makes of the same pattern the same one."""

    names: dict[tuple[fx.Node, int], int] = field(default_factory=dict)

    def after(self, node: fx.Node, given: Multiples) -> Multiples:
        """What a linear operation that treats all channels alike makes of multiples."""
        pattern = given.pattern.copy()
        for old in np.unique(pattern[pattern != NONE]):
            name = self.names.setdefault((node, int(old)), len(self.names) + ONE + 1)
            pattern[given.pattern == old] = name
        return Multiples(pattern, given.coefficient)
