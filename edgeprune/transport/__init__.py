"""How a device is reached: one contract, one file a way. Start with `contract.Transport`, then `local`.

`names.py` says what a device may be called; a new way is one new file, one line there and one in `connect`.
"""

from __future__ import annotations

from edgeprune.errors import TransportError
from edgeprune.transport.contract import Channel, Transport
from edgeprune.transport.local import LocalTransport
from edgeprune.transport.names import LOCAL, Device, check, completed, find, names, own_devices
from edgeprune.transport.wheels import why_not
from edgeprune.transport.worker import TimedSamples, Worker

__all__ = [
    "LOCAL",
    "Channel",
    "Device",
    "LocalTransport",
    "TimedSamples",
    "Transport",
    "Worker",
    "check",
    "completed",
    "connect",
    "find",
    "names",
    "own_devices",
    "why_not",
]


def connect(device: str | Device) -> Transport:
    """A transport to a device, by its name or as a matrix describes it; nothing is sent yet.

    Raises:
        UserError: no device of this name is known.
        TransportError: a stand-in that is not running.
    """
    found = find(device) if isinstance(device, str) else device
    way = found.way()
    if way.kind == "local":
        return LocalTransport()
    raise TransportError(f"{found.name}: devices behind {way.kind} cannot be reached yet")
