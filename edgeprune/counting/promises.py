"""What counts promise, before anything is measured: the papers' theoretical speed-ups, and compressed sizes."""

from __future__ import annotations

import gzip
from pathlib import Path

from edgeprune.errors import StorageError, UserError


def theoretical_speedup_filters(ratio: float) -> float:
    """1 / (1 - ratio): what papers promise that count removed filters.

    Args:
        ratio: Fraction of filters removed, in [0, 1); UserError outside.

    >>> theoretical_speedup_filters(0.5)
    2.0
    """
    if not 0.0 <= ratio < 1.0:
        raise UserError(f"pruning ratio is {ratio}", hint="a fraction of the filters in [0, 1), such as 0.5")
    return 1.0 / (1.0 - ratio)


def theoretical_speedup_macs(dense: int, shrunk: int) -> float | None:
    """MACs(dense) / MACs(shrunk): what papers promise that count multiply-adds; None if nothing is left to compute.

    >>> theoretical_speedup_macs(300, 100)
    3.0
    """
    return dense / shrunk if shrunk > 0 else None


def compressed_bytes(path: Path) -> int:
    """Size of a file after gzip -9, in bytes; the same content gives the same size. StorageError if unreadable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    return len(gzip.compress(content, compresslevel=9, mtime=0))
