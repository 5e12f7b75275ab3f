"""What `adb` says, and what it means for whoever reads it: the states of devices, and refused copies.

Start with `state_error`. The states are those of adb's own list (packages/modules/adb, `connection_state_to_string`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.errors import LinkLostError, TransportError

_LINE = re.compile(r"(?P<serial>\S+)\s+(?P<state>no permissions|\S+)(?P<rest>.*)")
_FOR_A_PERSON = {"unauthorized", "no permissions"}
_MODEL = re.compile(r"\bmodel:(\S+)")
_NO_PHONE = (
    "on the phone: Settings, About phone, tap the build number seven times, then Developer options, USB debugging; "
    "use a cable that carries data; see whether `adb devices` lists it"
)


@dataclass(frozen=True)
class Attached:
    """A line of `adb devices -l`.

    Attributes:
        serial: What `adb -s` takes.
        state: "device" if it can be used.
        model: What it calls itself, "" if it does not say.
    """

    serial: str
    state: str
    model: str


def attached(listing: bytes) -> list[Attached]:
    """The devices of `adb devices -l`.

    >>> attached(b"List of devices attached\\nR58N  device usb:1-4 model:SM_P610\\n\\n")
    [Attached(serial='R58N', state='device', model='SM_P610')]
    """
    devices = []
    _, _, lines = listing.decode(errors="replace").partition("List of devices attached")
    for line in lines.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found:
            model = _MODEL.search(found["rest"])
            devices.append(Attached(found["serial"], found["state"], model[1] if model else ""))
    return devices


def state_error(
    name: str, serial: str | None, devices: Sequence[Attached], device: Attached | None, *, was_there: bool
) -> TransportError:
    """Why a device cannot be used, and what to do.

    Args:
        name: As the user wrote it.
        serial: The one that was asked for, None for the only one.
        devices: All that are attached.
        device: The one that was meant; None if it is not there.
        was_there: It could be used before: it may come back by itself.
    """
    listed = ", ".join(f"adb:{other.serial}" + (f" ({other.model})" if other.model else "") for other in devices)
    if device is not None:
        error = _unusable(name, device)
        if was_there and device.state not in _FOR_A_PERSON:  # restarting, it passes through states of all kinds
            return LinkLostError(error.message, hint=error.hint)
        return error
    if was_there:
        hint = "is it restarting, or the cable loose? `adb devices` lists it when it is back"
        return LinkLostError(f"{name}: the phone has gone", hint=hint)
    if serial is not None:
        hint = f"attached are: {listed}" if devices else _NO_PHONE
        return TransportError(f"{name}: no device {serial} is attached", hint=hint)
    if devices:
        return TransportError(f"{name}: {len(devices)} devices are attached", hint=f"name one of them: {listed}")
    return TransportError(f"{name}: no phone is attached", hint=_NO_PHONE)


def _unusable(name: str, device: Attached) -> TransportError:
    if device.state in ("unauthorized", "authorizing"):
        return TransportError(
            f"{name}: the phone does not know this computer yet",
            hint="unlock the phone and accept the dialog 'Allow USB debugging?'; if none is there: adb reconnect",
        )
    if device.state in ("offline", "connecting"):
        return LinkLostError(
            f"{name}: the phone is attached and does not answer (adb: {device.state})",
            hint="adb reconnect offline; then pull the cable and plug it in again",
        )
    if device.state == "no permissions":
        return TransportError(
            f"{name}: this user may not use the phone's USB port",
            hint="sudo apt-get install android-sdk-platform-tools-common (its udev rules); then plug it in again",
        )
    return TransportError(
        f"{name}: the phone runs no Android now (adb: {device.state})", hint="start it as usual: adb reboot"
    )


def refusal(said: bytes) -> str | None:
    """Why the device or this machine refused a copy, in its own words; None if the connection is to blame.

    >>> refusal(b"adb: error: failed to copy 'a' to '/b': remote write failed: No space left on device")
    'No space left on device'
    """
    text = said.decode(errors="replace")
    for words in ("No space left on device", "Read-only file system", "Permission denied", "No such file or directory",
                  "Is a directory", "Not a directory", "File too large", "Disk quota exceeded"):  # fmt: skip
        if words in text:
            return words
    return None
