"""What one way to a device (ssh, adb) must offer; `remote.RemoteTransport` makes a whole transport of it.

A link carries programs' streams and files' bytes and knows what its own client program says when something is wrong.
Leases, hashes, the agent and everything else that is alike for all devices are none of its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeprune.errors import GarbledAnswerError

QUERY_SECONDS = 30.0
TRANSFER_SECONDS = 180.0


@dataclass(frozen=True)
class Completed:
    """A program that ran on the device to its end.

    Args:
        status: Its exit status, carried in band: what a client program's own status says is ambiguous.
        stdout: All that it wrote.
        stderr: The same for its stderr, with whatever the client program said.
    """

    status: int
    stdout: bytes
    stderr: bytes

    def size(self, device: str) -> int:
        """The number of bytes that it printed.

        Raises:
            GarbledAnswerError: it printed something else.
        """
        if not self.stdout.strip().isdigit():
            raise GarbledAnswerError(f"{device}: not an answer: {self.stdout[:200]!r} is no size")
        return int(self.stdout)


class Link(Protocol):
    """One way to one device. Remote paths are absolute.

    All but `close` raise TransportError, and LinkLostError where waiting may help.
    """

    name: str
    """The device as a matrix writes it."""

    @property
    def folder(self) -> str:
        """The private folder on the device, such as /home/pi/.cache/edgeprune-device; it may not be there yet."""

    def check(self) -> None:
        """See that the device can be reached and a program run there.

        Raises:
            TransportError: with the cause (unreachable, host key, not authorised ...) and the command that mends it.
        """

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The argument list of a program here whose three streams are those of that program on the device."""

    def call(self, arguments: Sequence[str], *, stdin: bytes = b"", timeout: float = QUERY_SECONDS) -> Completed:
        """Run a program on the device to its end; that it fails there is no error here.

        Raises:
            TransportError: it could not be run, or did not end within `timeout` seconds.
        """

    def send(self, local: Path, remote: str) -> None:
        """Copy a file's bytes to that name on the device, whose folder is there."""

    def fetch(self, remote: str, local: Path) -> None:
        """Copy a file's bytes from the device."""

    def close(self) -> None:
        """End what keeps the way open, and what goes over it, from whichever thread; it opens again when it is used."""
