"""What is compiled for each device of a matrix: known before anything is compiled, and the same when a run goes on.

A target is part of a cell's identity, so it must not depend on which devices happen to answer today. It is, in this
order: what the matrix or the user's file says; what the results folder was begun with; what the device says of itself.
Start with `find_targets`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgeprune import manifest, profiles, transport
from edgeprune.errors import DeviceError
from edgeprune.matrix.cells import UNKNOWN_TARGET, stated_target
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.transport import Device


@dataclass(frozen=True)
class Targets:
    """The target of every device, by its name, and why there is none for some.

    The cells of a device without a target fail in this session. They are no cells of a later one in which it answers:
    what was written of them stands in nobody's way.
    """

    by_device: Mapping[str, str]
    problems: Mapping[str, DeviceError]


def find_targets(spec: MatrixSpec, folder: Path) -> Targets:
    """The targets of a matrix's devices; only those that nobody has named one for are asked, all at once.

    Args:
        spec: The matrix.
        folder: The results folder, which remembers the targets that it was begun with.

    Raises:
        ResultsError: the folder's manifest cannot be read.
    """
    remembered = _remembered(folder)
    found = {device.name: stated_target(device) or remembered.get(device.name, "") for device in spec.devices}
    unknown = [device for device in spec.devices if not found[device.name]]
    problems: dict[str, DeviceError] = {}
    if unknown:
        with ThreadPoolExecutor(max_workers=len(unknown)) as asking:
            answers = [asking.submit(ask, device) for device in unknown]
        for device, answer in zip(unknown, answers, strict=True):
            try:
                found[device.name] = answer.result()
            except DeviceError as error:
                found[device.name] = UNKNOWN_TARGET
                problems[device.name] = error
    return Targets(found, problems)


def ask(device: Device) -> str:
    """The target that fits a device by what it says of itself.

    Raises:
        DeviceError: it does not answer, or no target fits it.
    """
    with contextlib.closing(transport.connect(device)) as way:
        facts = way.facts()
    target = profiles.recognise(facts)
    if target is None:
        raise DeviceError(
            f"{device.name}: no target fits its processor ({facts.get('machine')}, {profiles.system_of(facts)})",
            hint=f"name one in the matrix: {{name: {device.name}, target: TARGET}}; `edgeprune targets` lists them",
        )
    return target


def _remembered(folder: Path) -> dict[str, str]:
    if not (folder / manifest.MANIFEST_NAME).exists():
        return {}
    asked_before = manifest.read(folder).keys()
    return {key.device: key.target for key in asked_before}
