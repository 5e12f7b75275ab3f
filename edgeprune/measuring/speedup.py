"""What counts promise, before anything is measured, and how much of it turned out real. Start with `realised`."""

from __future__ import annotations

import math

from edgeprune.errors import UserError

NOTHING_PROMISED = 0.01


def theoretical_speedup_filters(ratio: float) -> float:
    """1 / (1 - ratio): what papers promise that count removed filters.

    Args:
        ratio: Fraction of filters removed, in [0, 1]; UserError outside. Where none is left the promise is infinite.

    >>> theoretical_speedup_filters(0.5)
    2.0
    """
    if not 0.0 <= ratio <= 1.0:
        raise UserError(f"pruning ratio is {ratio}", hint="a fraction of the filters in [0, 1], such as 0.5")
    return 1.0 / (1.0 - ratio) if ratio < 1.0 else math.inf


def theoretical_speedup_macs(dense: int, shrunk: int) -> float | None:
    """MACs(dense) / MACs(shrunk): what papers promise that count multiply-adds; None where either has none.

    >>> theoretical_speedup_macs(300, 100)
    3.0
    """
    return dense / shrunk if dense > 0 and shrunk > 0 else None


def realised(real: float, theoretical_macs: float) -> float | None:
    """The part of the promised speed-up that is real, log(real) / log(theoretical): 1 all of it, below 0 slower.

    None where the theory promises less than 1 % either way: the quotient would be noise over nothing.

    >>> realised(2.0, 4.0)
    0.5
    """
    if not (real > 0 and theoretical_macs > 0) or abs(math.log(theoretical_macs)) < NOTHING_PROMISED:
        return None
    return math.log(real) / math.log(theoretical_macs)
