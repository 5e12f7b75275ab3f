"""The journal of a run: every record that was measured, one a line, appended and never changed.

Start with `Journal.open` (the one writer of a results folder) and `read` (for everybody else). A line is

    {"sum":"<16 hexadecimal digits>","record":{...}}

where `sum` is the start of the SHA-256 of the record's own text. A line is written by one call and synced to the disk,
so a process that is killed leaves whole lines and at most one torn tail, which the next writer sets aside in
`journal.torn`. A line that was damaged later stays where it is and is named when the journal is read; what it held is
measured again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgeprune.errors import JournalError, ResultsError
from edgeprune.storage import storage_error

if TYPE_CHECKING:
    from edgeprune.schema import CellEnd, DeviceFacts, Launch, Network, Session

    AnyRecord = Session | DeviceFacts | Network | Launch | CellEnd

JOURNAL_NAME = "journal.jsonl"
TORN_NAME = "journal.torn"
LOCK_NAME = "run.lock"

_HEAD = b'{"sum":"'
_MIDDLE = b'","record":'
_SUM_DIGITS = 16
_LOCK_ATTEMPTS = 4


@dataclass(frozen=True)
class JournalContents:
    """The readable records in the order they were written, and in words what could not be read."""

    records: tuple[AnyRecord, ...]
    problems: tuple[str, ...]


def encode(record: AnyRecord) -> bytes:
    """The journal line of a record, with its newline."""
    body = json.dumps(record.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False).encode()
    return _HEAD + _checksum(body) + _MIDDLE + body + b"}\n"


def decode(line: bytes) -> AnyRecord:
    """The record of a journal line (without newline).

    Raises:
        JournalError: the line is torn or damaged, or holds a record that this version does not know.
    """
    from pydantic import ValidationError

    from edgeprune.schema import RECORDS

    start = len(_HEAD) + _SUM_DIGITS
    body = line[start + len(_MIDDLE) : -1]
    framed = line.startswith(_HEAD) and line[start : start + len(_MIDDLE)] == _MIDDLE and line.endswith(b"}")
    if not framed or line[len(_HEAD) : start] != _checksum(body):
        raise JournalError("the checksum does not match: the line was cut or changed")
    try:
        return RECORDS.validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise JournalError(
            f"not a record of this version ({field}: {first['msg']})",
            hint="it may come from a newer edgeprune: report it with that version",
        ) from None


def read(path: Path) -> JournalContents:
    """Read `journal.jsonl`; unreadable lines are named in `.problems` and left out.

    Raises:
        ResultsError: there is no such file, or it cannot be opened.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"{path}: {error.strerror}", hint="give a results folder that `edgeprune run` has written"
        ) from error
    records: list[AnyRecord] = []
    problems: list[str] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(decode(line))
        except JournalError as error:
            last = number == len(lines)
            what = "is torn (a run was stopped while writing it)" if last else f"left out: {error.message}"
            problems.append(f"{path.name} line {number} {what}; the same `edgeprune run` measures what is missing")
    return JournalContents(tuple(records), tuple(problems))


class Journal:
    """The one writer of a results folder; a context manager that holds the folder's lock."""

    def __init__(self, folder: Path, descriptor: int, lock: int) -> None:
        self.folder = folder
        self._descriptor = descriptor
        self._lock = lock

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Lock `folder`, mend a torn tail, and open its journal for appending.

        Raises:
            ResultsError: another run is writing there.
            StorageError: the folder cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
            try:
                _set_torn_tail_aside(folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                descriptor = os.open(folder / JOURNAL_NAME, flags, 0o644)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise storage_error(error, folder) from error
        return cls(folder, descriptor, lock)

    def append(self, record: AnyRecord) -> None:
        """Write one record and sync it; on a full disk the file is left as it was.

        Raises:
            StorageError: the disk is full or failed; everything written before is still there.
        """
        line = encode(record)
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            _forget_after(self._descriptor, before)
            raise storage_error(error, self.folder / JOURNAL_NAME) from error

    def close(self) -> None:
        """Close the file and let the folder go."""
        os.close(self._descriptor)
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_SUM_DIGITS].encode()


def _take_lock(folder: Path) -> int:
    """Lock `run.lock` and write into it who holds it; the kernel lets go when the process ends, however it ends."""
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock_patiently(lock)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ResultsError(
            f"{folder}: another run is writing there ({holder})",
            hint="wait for it, stop it with Ctrl-C, or choose another folder with --results DIR",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _lock_patiently(lock: int) -> None:
    """Take the lock; `is_locked` may hold it for an instant, another run holds it for long."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == _LOCK_ATTEMPTS - 1:
                raise
            time.sleep(0.1)
        else:
            return


def _set_torn_tail_aside(folder: Path) -> None:
    """Move bytes after the last newline into `journal.torn`, or complete them if only the newline is missing."""
    path = folder / JOURNAL_NAME
    if not path.exists():
        return
    content = path.read_bytes()
    keep = content.rfind(b"\n") + 1
    tail = content[keep:]
    if not tail:
        return
    try:
        decode(tail)
    except JournalError:
        with (folder / TORN_NAME).open("ab") as torn:
            torn.write(tail + b"\n")
        os.truncate(path, keep)
    else:
        with path.open("ab") as journal:
            journal.write(b"\n")


def _forget_after(descriptor: int, size: int) -> None:
    """Cut a half-written line off; where even that fails, the next writer sets the tail aside."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, size)


def is_locked(folder: Path) -> bool:
    """Whether a run is writing in this folder now."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
