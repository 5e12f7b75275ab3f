"""What a pushed file is known by, on every device alike: its bytes. Start with `content_name`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from edgeprune import storage
from edgeprune.errors import TransportError


def content_name(digests: Sequence[str]) -> str:
    """A name for files that belong together, by their hashes: the same for the same bytes."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The hash of a file here, in hexadecimal.

    Raises:
        TransportError: it cannot be read.
    """
    try:
        return storage.sha256(path)
    except OSError as error:
        raise TransportError(f"cannot read {path}: {error.strerror}") from error
