"""Writing so that a file or folder is there whole or not at all, its hash, and the one wording of a disk that refuses.

Start with `write_whole` and `partial_folder`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

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


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """A folder to make something in, beside the place that it is moved to when it is whole; gone afterwards.

    What killed processes of this machine left there goes, too.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep_partial(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_partial_of_this_machine()}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_partial(parent: Path) -> None:
    """Remove the partial folders that killed processes of this machine left in `parent`."""
    prefix = _partial_of_this_machine()
    for folder in parent.glob(f"{prefix}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(prefix).partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)


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


def _partial_of_this_machine() -> str:
    """With a short name of this machine, since a cache may be shared over a network."""
    return f".partial-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"
