"""Static programs for other processors, run here under qemu-user: are the numbers right, and how many instructions?

Never how long it takes: an emulator's time says nothing of a device. Start with `Emulator`; `qemu.py` finds or fetches
qemu, `instructions.py` counts.
"""

from edgeprune.emulation import debian
from edgeprune.emulation.devices import devices, target_of
from edgeprune.emulation.instructions import count_instructions, run_program
from edgeprune.emulation.qemu import (
    ARCHITECTURES,
    Emulator,
    fetch_emulators,
    find_emulator,
    machine_emulator,
    static_emulator,
)

__all__ = [
    "ARCHITECTURES",
    "Emulator",
    "count_instructions",
    "debian",
    "devices",
    "fetch_emulators",
    "find_emulator",
    "machine_emulator",
    "run_program",
    "static_emulator",
    "target_of",
]
