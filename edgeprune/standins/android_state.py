"""What a stand-in phone says of its heat, battery, cores and boot: files that a test may change while it runs.

On a phone the same figures stand in sysfs and come out of `dumpsys`; the forms are Android 14's. Start with
`AndroidState`.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

LITTLE_KHZ, BIG_KHZ = 1_766_400, 2_803_200
LITTLE_CAPACITY, BIG_CAPACITY = 270, 1024
_CHARGING, _DISCHARGING = 2, 3  # android.os.BatteryManager


class AndroidState:
    """The files behind a phone's figures.

    Attributes:
        folder: `sys` is shown as /sys, `services` as what `dumpsys` prints, `boot_id` as the kernel's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def boot_id(self) -> Path:
        """The file that stands for /proc/sys/kernel/random/boot_id."""
        return self.folder / "boot_id"

    def create(self) -> None:
        """Write a cool, charged phone that has just booted."""
        cores = os.cpu_count() or 1
        for core in range(cores):
            is_big = core >= cores / 2
            cpu = f"devices/system/cpu/cpu{core}"
            khz = BIG_KHZ if is_big else LITTLE_KHZ
            self._write(f"sys/{cpu}/cpu_capacity", BIG_CAPACITY if is_big else LITTLE_CAPACITY)
            for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
                self._write(f"sys/{cpu}/cpufreq/{name}", khz)
            self._write(f"sys/{cpu}/cpufreq/scaling_governor", "schedutil")
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-1-0-usr")
        self._write("sys/class/thermal/thermal_zone1/type", "battery")
        self.set_battery()
        self.set_thermal()
        self.new_boot()

    def set_battery(self, *, level: int = 85, charging: bool = True, temp_c: float = 29.3) -> None:
        """A battery of `level` percent, at a USB port or not, of so many degrees Celsius."""
        supply = "sys/class/power_supply/battery"
        self._write(f"{supply}/capacity", level)
        self._write(f"{supply}/status", "Charging" if charging else "Discharging")
        self._write(f"{supply}/temp", round(temp_c * 10))
        self._write("sys/class/thermal/thermal_zone1/temp", round(temp_c * 1000))
        lines = [
            "Current Battery Service state:", "  AC powered: false", f"  USB powered: {str(charging).lower()}",
            "  Wireless powered: false", "  Dock powered: false", "  Max charging current: 500000",
            "  Max charging voltage: 5000000", "  Charge counter: 2804000",
            f"  status: {_CHARGING if charging else _DISCHARGING}", "  health: 2", "  present: true",
            f"  level: {level}", "  scale: 100", "  voltage: 4216", f"  temperature: {round(temp_c * 10)}",
            "  technology: Li-ion",
        ]  # fmt: skip
        self._write("services/battery", "\n".join(lines))

    def set_thermal(self, *, status: int = 0, temp_c: float = 38.1) -> None:
        """Processors of so many degrees Celsius; `status` from 0, none, to 6, shutdown (android.os.PowerManager)."""
        self._write("sys/class/thermal/thermal_zone0/temp", round(temp_c * 1000))
        sensor = f"\tTemperature{{mValue={temp_c}, mType=0, mName=CPU0, mStatus={status}}}"
        lines = [
            "IsStatusOverride: false", "ThermalEventListeners:", "\tcallbacks: 2", "\tkilled: false",
            f"Thermal Status: {status}", "Cached temperatures:", sensor, "HAL Ready: true", "HAL connection:",
            "\tThermalHAL 2.0 connected: yes", "Current temperatures from HAL:", sensor,
            "Current cooling devices from HAL:",
        ]  # fmt: skip
        self._write("services/thermalservice", "\n".join(lines))

    def new_boot(self) -> None:
        """Be another boot than before."""
        self._write("boot_id", uuid.uuid4())

    def _write(self, name: str, value: object) -> None:
        # in place: boot_id is shown at another place by its inode
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
