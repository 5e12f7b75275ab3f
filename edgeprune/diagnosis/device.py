"""What a device said of itself, judged: each figure, its limit, the cause where it is not good, and what mends it.

Pure functions of the agent's facts and of what `devices/doctor/look.sh` saw. Start with `judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune import profiles
from edgeprune.diagnosis.finding import Finding, judged
from edgeprune.measuring import LOW_BATTERY_PERCENT, battery_suffices
from edgeprune.profiles import DeviceProfile
from edgeprune.transport import Look

Facts = Mapping[str, Any]

_FREE_BYTES = 300 * 10**6
"""Two programs of a large network (ResNet-50's weights take 102 MB), and a runtime's packages."""
_BUSY_LOAD = 0.5
_BUSY_PERCENT = 20
_CLOCK_SECONDS = 5.0
_BATTERY_HOT_C = 40.0
_THROTTLED = {0: "the voltage is too low", 1: "the clock is capped", 2: "it is throttled", 3: "it is at its soft limit"}
_SINCE_BOOT = 16


def judge(facts: Facts, profile: DeviceProfile, clock_s: float | None) -> Iterator[Finding]:
    """What the agent's facts mean for measuring.

    Args:
        facts: What the agent said.
        profile: What is normal on such a device.
        clock_s: This machine's clock when the device told its own, seconds since 1970; None for this machine itself.
    """
    emulated = facts.get("emulated")
    if emulated:
        words = "nothing is timed there: numbers are compared and instructions counted"
        yield Finding("warning", "hardware", str(emulated), "a real device", words)
    yield from _space(facts)
    yield from _cores(facts, profile)
    yield from _load(facts)
    yield from _heat(facts, profile)
    yield from _throttling(facts, profile)
    yield from _battery(facts, profile)
    if clock_s is not None and facts.get("clock") is not None:
        off = float(facts["clock"]) - clock_s
        advice = "measured times do not depend on it, times in log files do: sudo timedatectl set-ntp true"
        words = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's" if abs(off) >= 1 else "as here"
        yield judged(abs(off) <= _CLOCK_SECONDS, "clock", words, f"{_CLOCK_SECONDS:.0f} s", advice)


def judge_look(looked: Look) -> Iterator[Finding]:
    """What `devices/doctor/look.sh` saw: the private folder, and what else runs there."""
    yield judged(
        looked.mode[4:10] == "------",
        "private folder",
        f"{looked.mode}, user {looked.user}",
        "drwx------",
        "others on the device may read or change what runs there: edgeprune devices clean DEVICE",
    )
    yield judged(
        looked.runs,
        "programs",
        "may be started in the private folder" if looked.runs else "may not be started in the private folder",
        "",
        "its file system is mounted noexec, or a policy forbids it: see `mount` on the device",
        bad="blocked",
    )
    words = ", ".join(f"{name} {percent} %" for name, percent in looked.busy) or "nothing takes 5 % of a core"
    most = max((percent for _, percent in looked.busy), default=0)
    advice = "it takes cores and heats them while others are measured: close it"
    yield judged(most <= _BUSY_PERCENT, "what else runs", words, f"{_BUSY_PERCENT} % of a core", advice)


def judge_python(facts: Facts, bits: int | None, reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Python there, and which runtimes may be in it.

    Args:
        facts: What the agent said.
        bits: Of the device's programs, None if unknown.
        reasons: By runtime, why it cannot be there; "" where it can.
    """
    if bits == 32 and str(facts.get("machine")) in ("aarch64", "x86_64"):
        words = "static programs of 64 bits run; packages for Python do not exist: install the 64-bit system"
        yield Finding("warning", "system", "32-bit programs on a 64-bit kernel", "64 bits", words)
    version = facts.get("python") or "none"
    yield Finding("good", "Python there", str(version))
    for runtime, reason in reasons.items():
        yield judged(
            not reason, f"runtime {runtime}", "its packages are pushed" if not reason else "skipped", "", reason
        )


def _space(facts: Facts) -> Iterator[Finding]:
    free = facts.get("free_bytes")
    if free is not None:
        words, limit = f"{free / 1e9:.1f} GB", f"at least {_FREE_BYTES / 1e9:.1f} GB"
        yield judged(
            free >= _FREE_BYTES, "free space", words, limit, "free some; `edgeprune devices clean` removes ours"
        )


def _cores(facts: Facts, profile: DeviceProfile) -> Iterator[Finding]:
    cores = facts["cores"]
    expected = sum(map(len, profile.clusters))
    yield judged(
        len(cores) >= max(2, expected),
        "cores",
        f"{len(cores)}",
        f"{expected}" if expected else "at least 2",
        "one core serves the worker and everything else: expect wider intervals"
        if len(cores) < 2
        else "the system keeps some offline or back, to save power: switch its power saving off",
    )
    advice = "workers wander between cores: sudo apt-get install util-linux"
    yield judged(facts["pinning"], "pinning", "workers are pinned" if facts["pinning"] else "no taskset", "", advice)
    governors = sorted({core["governor"] for core in cores if core["governor"]})
    if governors:
        advice = "the clock changes while measuring: sudo cpupower frequency-set -g performance   (and back afterwards)"
        if profiles.system_of(facts) == "android":
            advice = "the clock changes while measuring, and only root may set it: keep the screen on, measure longer"
        yield judged(governors == ["performance"], "governor", ", ".join(governors), "performance", advice)


def _load(facts: Facts) -> Iterator[Finding]:
    words = str(facts["load"] or "").split()
    if words:
        limit = _BUSY_LOAD * len(facts["cores"])
        advice = "close what is running there; `top` names it"
        yield judged(float(words[0]) <= limit, "load", words[0], f"at most {limit:.1f}", advice)


def _heat(facts: Facts, profile: DeviceProfile) -> Iterator[Finding]:
    temperature = facts["temp_c"]
    if temperature is None:
        advice = "throttling would go unnoticed: watch the flag `drift`"
        yield Finding("warning", "temperature", "cannot be read", "", advice)
        return
    throttles = f"; it throttles from {profile.throttles_c:.0f} °C" if profile.throttles_c else ""
    advice = "let it cool down, take it out of its case, or add a fan"
    limit = f"{profile.hot_c:.0f} °C before a run{throttles}"
    yield judged(temperature <= profile.hot_c, "temperature", f"{temperature:.0f} °C", limit, advice)


def _throttling(facts: Facts, profile: DeviceProfile) -> Iterator[Finding]:
    told = facts.get("throttled")
    if not told:
        if "throttled" in profile.reads:
            advice = "let the user ask the firmware: sudo usermod -aG video $USER, then log in anew"
            yield Finding("warning", "throttling", "cannot be read", "", advice)
        return
    word = int(str(told), 16)
    now = [text for bit, text in _THROTTLED.items() if word >> bit & 1]
    since = [text for bit, text in _THROTTLED.items() if word >> (bit + _SINCE_BOOT) & 1]
    figure = f"{told}: " + (", ".join(now) or ("not now; since its start: " + ", ".join(since) if since else "never"))
    low = any("voltage" in text for text in (*now, *since))
    advice = "use the board's own power supply and a short cable" if low else "cool it better: a heat sink, a fan"
    yield judged(not now and not since, "throttling", figure, "0x0", f"{advice}; `sudo reboot` clears what was")


def _battery(facts: Facts, profile: DeviceProfile) -> Iterator[Finding]:
    battery = facts.get("battery")
    if not battery:
        if "battery" in profile.reads:
            yield Finding(
                "warning", "battery", "cannot be read", "", "look at the screen: it should be full and charging"
            )
        return
    percent, charging = battery["percent"], battery["charging"]
    state = {True: ", charging", False: ", not charging", None: ""}[charging]
    advice = "with little left the system saves power and lowers the clock: plug it in"
    limit = f"at least {LOW_BATTERY_PERCENT} %, or charging"
    yield judged(battery_suffices(percent, charging), "battery", f"{percent} %{state}", limit, advice)
    if battery.get("temp_c") is not None:
        cool = battery["temp_c"] <= _BATTERY_HOT_C
        advice = "the system lowers the clock for a hot battery: let it cool, out of its cover, screen off"
        yield judged(cool, "battery's heat", f"{battery['temp_c']:.0f} °C", f"{_BATTERY_HOT_C:.0f} °C", advice)
