"""How a device is reached: one contract, one file a way. Start with `contract.Transport`, then `local`.

A new way is one new file and one line in `_TRANSPORTS`.
"""

from __future__ import annotations

from edgeprune.errors import UnknownNameError
from edgeprune.transport.contract import Channel, Transport
from edgeprune.transport.local import LocalTransport
from edgeprune.transport.worker import TimedSamples, Worker

__all__ = ["Channel", "LocalTransport", "TimedSamples", "Transport", "Worker", "connect", "devices", "known_device"]

_TRANSPORTS = {"local": LocalTransport}


def devices() -> list[str]:
    """Names of the devices that a matrix can name."""
    return sorted(_TRANSPORTS)


def known_device(name: str) -> bool:
    """Whether `connect(name)` would know what to do."""
    return name in _TRANSPORTS


def connect(name: str) -> Transport:
    """A transport to the device of this name; nothing is sent yet.

    Raises:
        UnknownNameError: no device of this name is known.
    """
    if not known_device(name):
        raise UnknownNameError("device", name, devices())
    return _TRANSPORTS[name]()
