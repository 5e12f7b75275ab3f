"""Files on a reached device: copied under a temporary name, their hash checked there, then renamed.

The hash is taken on the device because neither a copy's exit status nor its length says that all bytes lie there: a
file copied onto a full disk may have its full length. Start with `RemoteFiles.put`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import LinkLostError, NoRoomError, TransportError
from edgeprune.transport.contents import sha256
from edgeprune.transport.link import TRANSFER_SECONDS, Completed, Link

_MB = 1_000_000
_FULL = re.compile(rb"No space left|quota exceeded|File too large", re.IGNORECASE)

_MAKE = 'umask 077; mkdir -p "$2" && chmod 700 "$1" && shift 2 && rm -f "$@"'

_LOOK = """
for f; do
  if [ -f "$f" ]; then sum=$(sha256sum <"$f") || exit; echo "${sum%% *}"; else echo -; fi
done"""

# every file: where it was copied to, its name, its hash, its mode
_TAKE = """
while [ $# -gt 3 ]; do
  sum=$(sha256sum <"$1")
  [ "${sum%% *}" = "$3" ] || { echo "$1 does not have the hash of its source" >&2; exit 1; }
  chmod "$4" "$1" && mv -f "$1" "$2" || exit
  shift 4
done"""


@dataclass(frozen=True)
class _Copy:
    """A file on its way: what is copied, where its bytes go first, what it is called then."""

    source: Path
    digest: str
    partial: str
    remote: str

    @property
    def mode(self) -> str:
        return "700" if os.access(self.source, os.X_OK) else "600"


class RemoteFiles:
    """Copies files to and from a device."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._left: list[str] = []

    def put(self, sources: Sequence[Path], remotes: Sequence[str]) -> None:
        """Copy files to these names in one folder on the device, which is made; what is there already is left alone.

        Raises:
            LinkLostError: the link broke; what was copied is not under its name yet.
            NoRoomError: the device's disk is full.
            TransportError: a copy failed or does not equal its source.
        """
        digests = [sha256(source) for source in sources]
        folder = remotes[0].rpartition("/")[0]
        there = (
            self._call(["sh", "-c", _LOOK, "sh", *remotes], "cannot look at what is there").stdout.decode().split("\n")
        )
        mark = secrets.token_hex(4)
        copies = [
            _Copy(source, digest, f"{folder}/.{number}.{mark}.part", remote)
            for number, (source, digest, remote) in enumerate(zip(sources, digests, remotes, strict=True))
            if there[number] != digest
        ]
        if copies:
            private = ["sh", "-c", _MAKE, "sh", self._link.folder, folder, *self._left]
            self._call(private, f"cannot make the folder {folder}")
            self._left = []
            self._copy(copies, folder)

    def get(self, remote: str, destination: Path) -> None:
        """Copy a file from the device, and see that it equals what is there.

        Raises:
            TransportError: it is not there, or cannot be copied.
        """
        looked = self._call(["sh", "-c", _LOOK, "sh", remote], f"cannot read {remote}")
        digest = looked.stdout.decode().strip()
        if digest == "-":
            raise TransportError(f"{self._link.name}: there is no {remote}")
        self._link.fetch(remote, destination)
        if sha256(destination) != digest:
            raise TransportError(f"{self._link.name}: the copy of {remote} does not equal it")

    def remove(self, *remotes: str) -> None:
        """Remove files or folders; what is not there is fine."""
        self._call(["rm", "-rf", *remotes], "cannot remove what was copied")

    def _copy(self, copies: Sequence[_Copy], folder: str) -> None:
        try:
            for copy in copies:
                self._link.send(copy.source, copy.partial)
            names = [word for copy in copies for word in (copy.partial, copy.remote, copy.digest, copy.mode)]
            self._call(["sh", "-c", _TAKE, "sh", *names], "the copies are not what was sent")
        except LinkLostError:
            self._left += [copy.partial for copy in copies]  # each of them may have the size of a whole network
            raise
        except TransportError as error:
            free = self._free_bytes(folder)
            self.remove(*(copy.partial for copy in copies))
            raise self._explained(error, copies, folder, free) from error

    def _free_bytes(self, folder: str) -> int | None:
        """What is free where that folder lies, None where `df` cannot say."""
        done = self._link.call(["df", "-Pk", folder])
        fields = done.stdout.splitlines()[-1].split() if done.stdout else []
        return 1024 * int(fields[3]) if len(fields) > 4 and fields[3].isdigit() else None

    def _explained(
        self, error: TransportError, copies: Sequence[_Copy], folder: str, free: int | None
    ) -> TransportError:
        """A failed copy, told as a full disk where it was one."""
        size = sum(copy.source.stat().st_size for copy in copies)
        said = (error.detail or "").encode()
        if not _FULL.search(said) and (free is None or free >= size):
            return error
        room = "" if free is None else f"; {free / _MB:.1f} MB are free there"
        return NoRoomError(
            f"{self._link.name}: no room for {copies[0].source.name} in {folder}: {size / _MB:.1f} MB to copy{room}",
            hint="free some space on the device, or edgeprune devices clean",
            detail=error.detail,
        )

    def _call(self, arguments: Sequence[str], failure: str) -> Completed:
        done = self._link.call(arguments, timeout=TRANSFER_SECONDS)  # hashing a large file takes a slow card's time
        if done.status:
            detail = done.stderr.decode(errors="replace").strip()
            raise TransportError(f"{self._link.name}: {failure}", detail=detail or None)
        return done
