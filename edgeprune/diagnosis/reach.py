"""The doctor's visit to a device: is it there, what does it say, may programs be put there? Start with `look_there`.

The device is taken for the visit as for a run, so that nobody's measurement is disturbed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprune import compiling, profiles, transport
from edgeprune.diagnosis.device import judge, judge_look, judge_python
from edgeprune.diagnosis.finding import Finding, judged
from edgeprune.diagnosis.laptop import adb_client, ssh_client
from edgeprune.errors import DeviceError, EdgepruneError
from edgeprune.profiles import DeviceProfile, Profile
from edgeprune.resources import devices_folder
from edgeprune.transport import Device, Look, Transport

_LOOK_SECONDS = 120.0  # under emulation, or on a loaded Zero


def look_there(device: Device) -> Iterator[Finding]:
    """Everything about one device that lets good numbers be measured there, or not."""
    kind = device.way().kind
    if kind == "ssh":
        yield ssh_client()
    elif kind == "adb":
        yield adb_client(device.adb)
    try:
        with contextlib.closing(transport.connect(device)) as way:
            yield from visit(device, way)
    except EdgepruneError as error:
        yield Finding("blocked", "reached", error.message, "", _advice(error))


def visit(device: Device, way: Transport) -> Iterator[Finding]:
    """What is found on a device that `way` leads to.

    Raises:
        TransportError: it cannot be reached.
    """
    before = time.time()
    facts = way.facts()
    after = time.time()
    called = facts.get("model") or facts.get("board") or facts["processor"]
    yield Finding("good", "found", f"{called}, {facts['machine']}, {facts['os']}")
    target = device.target or (compiling.HOST if way.is_this_machine else profiles.recognise(facts))
    profile = _profile(target)
    yield from _target(device, facts, target, profile)
    # the question took its time, and the answer is of some moment in it
    clock = None if way.is_this_machine else min(max(float(facts.get("clock") or before), before), after)
    yield from judge(facts, profile.device if profile else DeviceProfile(), clock)
    if not way.acquire():
        words = way.holder() or "another run"
        yield Finding("warning", "in use", words, "nobody", "wait until that run has ended, and ask again for the rest")
        return
    yield Finding("good", "in use", "nobody has it")
    bits = None
    try:
        looked = _look(way)
        bits = looked.bits
        yield from judge_look(looked)
    except DeviceError as error:
        yield Finding("blocked", "programs", error.message, "", _advice(error))
    if not way.is_this_machine:
        reasons = {
            name: transport.why_not(name, facts)
            for name in compiling.runtimes()
            if not compiling.is_program(name) and not compiling.is_accelerator(name)
        }
        yield from judge_python(facts, bits, reasons)


def _target(device: Device, facts: dict[str, Any], target: str | None, profile: Profile | None) -> Iterator[Finding]:
    if target is None:
        advice = f"name one in the matrix: {{name: {device.name}, target: TARGET}}; `edgeprune targets` lists them"
        words = f"none fits {facts['machine']}, {profiles.system_of(facts)}"
        yield Finding("blocked", "target", words, "", advice)
    elif profile is not None:
        reason = profiles.misfit(profile, facts)
        words = f"{target} ({'as the matrix or your file says' if device.target else 'recognised'})"
        # a 64-bit kernel may run programs of 32 bits, and says nothing of their instruction sets
        may_run = facts["machine"] == "aarch64" and profile.architecture.startswith("armv7")
        advice = f"{reason}: name another target"
        yield judged(not reason, "target", words, "", advice, bad="warning" if may_run else "blocked")


def _profile(target: str | None) -> Profile | None:
    """What is known of such devices, or stands in a user's own file; None of this machine.

    Raises:
        UserError: the user's file cannot be read.
    """
    if target is not None and target.endswith(profiles.SUFFIXES):
        return profiles.read_profile(Path(target))
    return profiles.profiles().get(target or "")


def _look(way: Transport) -> Look:
    (script,) = way.push([devices_folder() / "doctor" / "look.sh"])
    channel = way.run(["sh", script], None)
    try:
        return transport.read_answer(Look, channel.receive(_LOOK_SECONDS), way.name)
    finally:
        channel.stop()


def _advice(error: EdgepruneError) -> str:
    return "; ".join(part for part in (error.hint or "", error.evidence) if part)
