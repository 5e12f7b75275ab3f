"""Which devices there are and whether they answer. Start with `known` and `call`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgeprune import compiling, emulation, profiles, standins, transport
from edgeprune.compiling import fpga
from edgeprune.errors import DeviceError, EdgepruneError
from edgeprune.transport import Device


@dataclass(frozen=True)
class Answer:
    """What came of asking one device.

    Attributes:
        name: As a matrix would name it.
        state: answers, no answer, not running, available, ...
        hardware: What it calls itself.
        target: What would be compiled for it.
        system: Its operating system or, of an emulated or simulated one, what carries it out.
        reason: Why it does not answer, and what to do.
    """

    name: str
    state: str
    hardware: str = ""
    target: str = ""
    system: str = ""
    reason: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether it should have answered and did not."""
        return self.state == "no answer"


def known() -> list[Device]:
    """This machine, the devices of the user's file, the phones that are attached, and the stand-ins that run."""
    own = transport.own_devices()
    taken = {device.way().serial for device in own}
    phones = [Device(name=f"adb:{phone.serial}") for phone in transport.attached_phones() if phone.serial not in taken]
    running = [Device(name=name) for name in standins.names() if standins.device(standins.folder_of(name))]
    return [Device(name=transport.LOCAL), *own, *phones, *running]


def call(devices: Sequence[Device]) -> list[Answer]:
    """Ask all devices for their facts, at the same time: one that does not answer takes its time."""
    with ThreadPoolExecutor(max_workers=max(1, len(devices))) as asking:
        return list(asking.map(_ask, devices))


def others() -> list[Answer]:
    """The stand-ins that do not run, the emulated devices, and the simulated ones."""
    idle = [
        Answer(name, "not running", reason=f"edgeprune devices up {name}")
        for name in standins.names()
        if not standins.device(standins.folder_of(name))
    ]
    return idle + [_emulated(name) for name in emulation.devices()] + [_simulated(name) for name in fpga.devices()]


def _ask(device: Device) -> Answer:
    try:
        with contextlib.closing(transport.connect(device)) as way:
            facts = way.facts()
            here = compiling.HOST if way.is_this_machine else None
    except EdgepruneError as error:
        reason = "; ".join(part for part in (error.message.removeprefix(f"{device.name}: "), error.hint) if part)
        return Answer(device.name, "no answer", reason=reason)
    hardware = str(facts.get("model") or facts.get("board") or facts["processor"])
    target = device.target or here or profiles.recognise(facts) or ""
    reason = str(facts.get("emulated") or "") and f"emulated ({facts['emulated']}): nothing is timed there"
    if not target:
        reason = "no target fits: name one in the matrix; `edgeprune targets` lists them"
    cores = f"{hardware}, {len(facts['cores'])} cores"
    return Answer(device.name, "answers", cores, target, str(facts["os"]), reason)


def _emulated(name: str) -> Answer:
    """An emulated device: instructions are counted there, with qemu-user."""
    target = compiling.target(emulation.target_of(name) or "")
    hardware = f"{target.cpu or 'any'}, counts instructions"
    try:
        version = emulation.find_emulator(target.architecture).version()
    except DeviceError as error:
        return Answer(name, "needs qemu-user", hardware, target.name, reason=error.hint or error.message)
    return Answer(name, "available", hardware, target.name, version)


def _simulated(name: str) -> Answer:
    """A simulated accelerator: cycles are counted there, with Verilator."""
    target = fpga.target_of(name) or ""
    hardware = f"{fpga.core_of(target).label} int8 multipliers, counts cycles"
    try:
        version = fpga.simulator_version()
    except DeviceError as error:
        return Answer(name, "needs Verilator", hardware, target, reason=error.hint or error.message)
    return Answer(name, "available", hardware, target, version)
