"""From a device's way to its link: the one place that knows all of them. Start with `link_to`."""

from __future__ import annotations

from pathlib import Path

from edgeprune import standins
from edgeprune.errors import TransportError
from edgeprune.transport.adb import AdbLink
from edgeprune.transport.link import Link
from edgeprune.transport.names import Device
from edgeprune.transport.ssh import SshLink


def link_to(device: Device) -> Link:
    """A link to a device that is not this machine; nothing is sent yet.

    Raises:
        UserError: its address has no form that is known.
        TransportError: it is a stand-in that does not run.
    """
    way = device.way()
    if way.kind == "virtual":
        return _link_to_stand_in(device.name, way.host)
    if way.kind == "adb":
        return AdbLink(device.name, way.serial, device.server_port, device.adb)
    return SshLink(device.name, way.host, way.user, way.port)


def _link_to_stand_in(name: str, stand_in: str) -> Link:
    told = standins.device(standins.folder_of(stand_in))
    if told is None:
        raise TransportError(f"{name}: this stand-in does not run", hint=f"edgeprune devices up {stand_in}")
    if told["kind"] == "adb":
        return AdbLink(name, told["serial"], told["server_port"], environment=told["environment"])
    return SshLink(name, told["host"], told["user"], told["port"], Path(told["identity"]), Path(told["known_hosts"]))
