"""Writing so that a file is there whole or not at all, its hash, and the one wording of a disk that refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from edgeprune.errors import StorageError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
        temporary = None
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(error: OSError, path: Path) -> StorageError:
    """A write that failed, told as what happened, where, and what to do."""
    if error.errno in _DISK_FULL:
        return StorageError(
            f"{path}: the disk is full",
            hint="free some space and run the same command again: what was measured is kept and not repeated",
        )
    return StorageError(f"{path}: {error.strerror or error}", hint="choose a place that you may write")
