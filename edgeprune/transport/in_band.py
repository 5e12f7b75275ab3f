"""A program's exit status among its own words, since what a client program says of it is ambiguous. See `InBand`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from edgeprune.transport.link import Completed

_RUN = 'mark=$1; shift; "$@"; echo "$mark $?" >&2'


class InBand:
    """One program that is run to its end over a link.

    Args:
        arguments: The program on the device and its arguments.

    Attributes:
        words: What to run there in its stead.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._mark = secrets.token_hex(8)
        self.words = ["sh", "-c", _RUN, "sh", self._mark, *arguments]

    def completed(self, client_status: int, stdout: bytes, stderr: bytes) -> Completed | None:
        """What came of it, from what the client program ended with; None if the connection broke before all was here.

        The mark alone is not enough: the connection may have broken before the last of stdout came through.
        """
        said, found, rest = stderr.rpartition(self._mark.encode() + b" ")
        status = re.match(rb"(\d+)\n", rest)
        if not found or status is None or client_status:
            return None
        return Completed(int(status[1]), stdout, said + rest[status.end() :])
