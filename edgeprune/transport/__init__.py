"""How a device is reached: one contract, one file a way. Start with `contract.Transport`, then `local`.

Devices that are not this machine are all one `remote.RemoteTransport` over a `link.Link`. `names.py` says what a device
may be called; a new way is one new file, one line there and one in `ways.py`.
"""

from __future__ import annotations

from edgeprune.transport.adb import attached_phones
from edgeprune.transport.answers import Look
from edgeprune.transport.answers import read as read_answer
from edgeprune.transport.channel import PATIENCE_SECONDS, Channel
from edgeprune.transport.contract import Transport
from edgeprune.transport.local import LocalTransport
from edgeprune.transport.names import LOCAL, Device, check, completed, find, names, own_devices
from edgeprune.transport.remote import RemoteTransport
from edgeprune.transport.ways import link_to
from edgeprune.transport.wheels import why_not
from edgeprune.transport.worker import ANSWER_SECONDS, TimedSamples, Worker

__all__ = [
    "ANSWER_SECONDS",
    "LOCAL",
    "Channel",
    "Device",
    "LocalTransport",
    "Look",
    "RemoteTransport",
    "TimedSamples",
    "Transport",
    "Worker",
    "attached_phones",
    "check",
    "completed",
    "connect",
    "find",
    "link_to",
    "names",
    "own_devices",
    "read_answer",
    "why_not",
]


def connect(device: str | Device, patience_s: float = PATIENCE_SECONDS) -> Transport:
    """A transport to a device, by its name or as a matrix describes it; nothing is sent yet.

    A link that is lost under a program there may stay away for `patience_s` seconds, or 90 if that is less: then the
    device has ended the program.

    Raises:
        UserError: no device of this name is known.
        TransportError: a stand-in that is not running.
    """
    found = find(device) if isinstance(device, str) else device
    if found.way().kind == "local":
        return LocalTransport()
    return RemoteTransport(link_to(found), patience_s)
