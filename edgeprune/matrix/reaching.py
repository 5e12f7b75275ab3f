"""Reaching the devices of a matrix while everything is still cool, and writing down what they are. See `Reach`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune import manifest as manifests
from edgeprune import transport
from edgeprune.compiling import fpga
from edgeprune.emulation import Emulator
from edgeprune.errors import LinkLostError, ResultsError
from edgeprune.manifest import Manifest, other_machine
from edgeprune.matrix.device import DeviceInUse, idle_temp_c
from edgeprune.matrix.emulated import emulator_for, facts_of
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.targets import Targets
from edgeprune.schema import DeviceFacts
from edgeprune.transport import Device, Transport

_LEASE_POLL_SECONDS = 2.0
_CLOSE_SECONDS = 10.0


class Reach:
    """Opens devices for one session of a results folder, and closes them; a context manager.

    Args:
        folder: The results folder.
        manifest: What it is about, with the devices that were reached in earlier sessions.
        memory: What it holds.
        targets: Of the devices; those that could not be asked for it are not asked again.
        session_id: Of this invocation.
        say: Told in a sentence what is waited for.
        patience_s: How long a device may be out of contact, seconds.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        memory: Memory,
        targets: Targets,
        session_id: str,
        say: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._memory = memory
        self._targets = targets
        self._session_id = session_id
        self._say = say
        self._patience_s = patience_s
        self._guard = threading.Lock()
        self._open: list[Transport] = []

    def device(self, device: Device) -> DeviceInUse:
        """Reach a device; one that is known and does not answer now may do so when all is prepared.

        Raises:
            DeviceError: it cannot be reached.
            ResultsError: it is another machine than the one that was measured under its name.
        """
        name = device.name
        if name in self._targets.problems:
            raise self._targets.problems[name]
        way = transport.connect(device, self._patience_s)
        self._open.append(way)
        known = self._manifest.devices.get(name)
        try:
            if way.is_this_machine:
                self._wait_for_this_machine(way)
            facts = way.facts()
        except LinkLostError as error:
            if not known:
                raise
            self._say(f"{name}: no contact ({error.message}); it is asked again when all is prepared")
            return DeviceInUse(way, device.cores, known, idle_temp_c(known, known), away=error)
        differing = other_machine(known, facts) if known and self._memory.launches else ""
        if differing:
            raise ResultsError(
                f"{self._folder}: {name} is another machine than the one measured there ({differing})",
                hint="go on where it was begun, or measure into another folder with --results DIR",
            )
        self.write_down(name, facts)
        return DeviceInUse(way, device.cores, facts, idle_temp_c(known, facts))

    def emulator(self, name: str) -> Emulator:
        """The emulator of an emulated device.

        Raises:
            DeviceError: it is not here.
        """
        emulator = emulator_for(name)
        self.write_down(name, facts_of(name, emulator))
        return emulator

    def simulator(self, device: Device) -> None:
        """Build the simulator of a simulated accelerator, once for all runs: a minute.

        Raises:
            DeviceError: Verilator or a C++ compiler is not here.
        """
        self._say(f"{device.name}: the simulator is built if it is not in the cache, about a minute")
        facts = fpga.facts_of(fpga.core_of(fpga.target_of(device.name) or ""))
        if device.clock_mhz is not None:
            facts["assumed_clock_mhz"] = device.clock_mhz
        self.write_down(device.name, facts)

    def write_down(self, name: str, facts: dict[str, Any]) -> None:
        """Note what a device says of itself, in the journal and in the manifest; devices' threads do so too."""
        self._memory.append(DeviceFacts(session_id=self._session_id, device=name, facts=facts))
        with self._guard:
            devices = {**self._manifest.devices, name: facts}
            self._manifest = self._manifest.model_copy(update={"devices": devices})
            manifests.write(self._folder, self._manifest)

    def _wait_for_this_machine(self, way: Transport) -> None:
        """Preparing here would disturb another run's measurement."""
        if way.acquire():
            return
        self._say(f"{way.name}: another run is measuring on it ({way.holder()}); waiting until it is free")
        while not way.acquire():
            time.sleep(_LEASE_POLL_SECONDS)

    def __enter__(self) -> Reach:
        return self

    def __exit__(self, *_: object) -> None:
        """Let all devices go at once; one that does not answer is not waited for longer than 10 s."""
        closing = [threading.Thread(target=way.close, daemon=True) for way in self._open]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
