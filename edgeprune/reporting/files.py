"""Writing the files of a report: whole or not at all, so that a reader never meets half a table."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from edgeprune.journal import storage_error


def write_atomically(path: Path, content: bytes) -> Path:
    """Write `content` beside `path` and move it there in one step; folders are made as needed. Returns `path`.

    Raises:
        StorageError: The disk is full or the folder cannot be written; the former file is still whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            # mkstemp makes private files, and a report is there to be shared
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise storage_error(error, path) from error
    return path
