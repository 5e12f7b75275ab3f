"""What a stand-in for a Raspberry Pi tells of itself under /sys, as plain files: tests warm it, slow it or throttle it.

The values at start are those of a cool Raspberry Pi 4 that is not throttled; they are a stand-in's, not measured.
"""

from __future__ import annotations

import os
from pathlib import Path

TEMPERATURE = "class/thermal/thermal_zone0/temp"
"""Thousandths of a degree Celsius."""
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
"""The firmware's throttle word, hexadecimal without 0x."""
CLOCK = "devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"
"""Clock of a core, kHz."""
MODEL = "edgeprune virtual Pi"
_AT_START = {
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    TEMPERATURE: "45000",
    THROTTLED: "0",
    "firmware/devicetree/base/model": MODEL,
    "class/dmi/id/product_name": MODEL,
}
_CORE_AT_START = {
    "cpuinfo_min_freq": "600000",
    "cpuinfo_max_freq": "1800000",
    "scaling_cur_freq": "1800000",
    "scaling_governor": "ondemand",
    "scaling_available_governors": "ondemand performance powersave",
}


def write_board(folder: Path) -> None:
    """Write a board's files anew, for the cores that this machine has."""
    values = dict(_AT_START)
    for core in sorted(os.sched_getaffinity(0)):
        place = Path(CLOCK.format(core=core)).parent
        values |= {str(place / name): value for name, value in _CORE_AT_START.items()}
    for name, value in values.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
