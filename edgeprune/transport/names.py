"""What a device may be called, and the way that a name stands for. Start with `find` and `Device.way`.

    local                       this machine
    pi@raspberrypi.local:2222   a board behind ssh; the port may be left out
    ssh:HOST                    a HOST of ~/.ssh/config, which says user, port and keys
    phone                       the only attached phone or tablet
    adb:SERIAL                  one of several; `adb devices` lists their serials
    virtual-pi, virtual-phone   a stand-in that `edgeprune devices up` has started

Names of one's own come from `~/.config/edgeprune/devices.yaml`, or stand in the matrix in the same words:

    devices:
      - {name: desk-pi, address: pi@10.0.0.5, target: rpi4, cores: [3]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeprune import lines, standins
from edgeprune.errors import UserError, nearest_hint
from edgeprune.resources import config_folder
from edgeprune.schema import EMULATED_PREFIX, SIMULATED_PREFIX

LOCAL = "local"
PHONE = "phone"
FORMS = "user@host, user@host:port, ssh:HOST, adb:SERIAL"
# nothing that begins with a hyphen: ssh and adb would take it for an option
_USER_AT_HOST = re.compile(
    r"(?P<user>[A-Za-z0-9_][\w.-]*)@(?P<host>[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?", re.ASCII
)
_ALIAS = re.compile(r"ssh:(?P<host>[A-Za-z0-9_][\w.-]*)", re.ASCII)
_SERIAL = re.compile(r"adb:(?P<serial>[A-Za-z0-9_][\w.:-]*)", re.ASCII)


@dataclass(frozen=True)
class Way:
    """How a device is reached.

    Attributes:
        kind: By which transport.
        host: Of ssh: a host name, an address, or a name of ~/.ssh/config. Of a stand-in: its name.
        user: Of ssh; None where ~/.ssh/config says it.
        port: Of ssh; None where ~/.ssh/config says it.
        serial: Of adb; None for the only device attached.
    """

    kind: Literal["local", "ssh", "adb", "virtual"]
    host: str = ""
    user: str | None = None
    port: int | None = None
    serial: str | None = None


class Device(BaseModel):
    """A device as a matrix or a user's file names it.

    Attributes:
        name: What tables call it.
        address: How it is reached, in one of the forms above; "" if the name says it.
        target: What is compiled for it; "" to ask the device.
        cores: Cores that workers run on; none for its fastest.
        adb: The adb program.
        server_port: Port of the adb server on this machine, None for adb's own.
        clock_mhz: Of a simulated accelerator: the clock that the user assumes for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    address: str = ""
    target: str = ""
    cores: tuple[Annotated[int, Field(ge=0, lt=4096)], ...] = ()
    adb: str = Field(default="adb", min_length=1)
    server_port: int | None = Field(default=None, ge=1, le=65535)
    clock_mhz: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)

    def way(self) -> Way:
        """How it is reached.

        Raises:
            UserError: neither name nor address has a form that is known.
        """
        return _parse(self.address or self.name)


class _File(BaseModel):
    """A user's file of devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: list[Device] = []


def find(name: str, others: Iterable[Device] = ()) -> Device:
    """The device of that name.

    Args:
        name: A name or an address.
        others: Devices that go before those of the user's file, such as a matrix's.

    Raises:
        UserError: there is none, or the user's file has a mistake.
    """
    known = {device.name: device for device in (*own_devices(), *others)}
    device = known.get(name, Device(name=name))
    check(device, names())
    return device


def completed(device: Device) -> Device:
    """The device, with what the user's file says of that name and it leaves open itself."""
    own = {one.name: one for one in own_devices()}.get(device.name)
    return device if own is None else own.model_copy(update=device.model_dump(exclude_unset=True))


def names() -> list[str]:
    """The names that need no address; boards and phones beside them are named by theirs."""
    return [*_built_in(), *(device.name for device in own_devices())]


def own_file() -> Path:
    """Where a user writes down devices."""
    return config_folder() / "devices.yaml"


def own_devices() -> list[Device]:
    """The devices of the user's file, in its order; none without a file.

    Raises:
        UserError: a mistake in it; the message names file and line.
    """
    path = own_file()
    if not path.exists():
        return []
    content, where = lines.read(path, "a file of devices", _File, UserError)
    try:
        devices = _File.model_validate(content).devices
    except ValidationError as error:
        example = "devices: [{name: desk-pi, address: pi@10.0.0.5}]"
        raise lines.explain(error, where, lambda place: Device if place else _File, example) from None
    for number, device in enumerate(devices):
        place = where.place(("devices", number))
        if device.name in {one.name for one in devices[:number]}:
            raise UserError(f"{place}: {device.name!r} is there twice")
        try:
            check(device, _built_in())
        except UserError as error:
            raise UserError(f"{place}: {error.message}", hint=error.hint) from None
    return devices


def check(device: Device, known: list[str]) -> None:
    """Refuse a name or an address that no way belongs to.

    Args:
        device: What a matrix or a user's file says.
        known: Names of which the nearest is offered for a wrong one.

    Raises:
        UserError: what is wrong, and what would be right.
    """
    if device.address and (device.name in _built_in() or device.name.startswith((EMULATED_PREFIX, SIMULATED_PREFIX))):
        raise UserError(f"{device.name!r} has a meaning of its own", hint="give the device another name")
    if device.clock_mhz is not None:
        raise UserError(f"{device.name!r} has a clock of its own", hint="clock_mhz is for simulated accelerators")
    address = device.address or device.name
    if "@" not in address and ":" not in address and address not in _built_in():
        raise UserError(f"unknown device {address!r}", hint=f"{nearest_hint(address, known)}, or {FORMS}")
    device.way()


def _built_in() -> list[str]:
    return [LOCAL, PHONE, *standins.names()]


def _parse(address: str) -> Way:
    if address == LOCAL:
        return Way("local")
    if address == PHONE:
        return Way("adb")
    if address in standins.names():
        return Way("virtual", host=address)
    if found := _SERIAL.fullmatch(address):
        return Way("adb", serial=found["serial"])
    if found := _ALIAS.fullmatch(address):
        return Way("ssh", host=found["host"])
    if found := _USER_AT_HOST.fullmatch(address):
        port = int(found["port"]) if found["port"] else None
        if port is None or 1 <= port <= 65535:
            return Way("ssh", host=found["host"].strip("[]"), user=found["user"], port=port)
    raise UserError(f"{address!r} is no address of a device", hint=f"write one of: {FORMS}")
