"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgeprune.errors import StorageError


def write_whole(path: Path, content: bytes) -> Path:
    """Write bytes to a file that readers see whole or not at all; folders on the way are made.

    Raises:
        StorageError: The disk is full, or the place cannot be written. What was there before is untouched.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path} ({len(content):,} bytes): {error.strerror or error}",
            hint="free space or choose another folder; nothing was left half-written",
        ) from error
    return path
