"""Sizes of files: what a network takes once it is compressed."""

from __future__ import annotations

import gzip
from pathlib import Path

from edgeprune.errors import StorageError


def compressed_bytes(path: Path) -> int:
    """Size of a file after gzip -9, in bytes; the same content gives the same size. StorageError if unreadable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    return len(gzip.compress(content, compresslevel=9, mtime=0))
