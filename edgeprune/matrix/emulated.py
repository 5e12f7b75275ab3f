"""Cells on emulated devices: equal numbers first, then the instructions of one inference. Nothing is timed there.

A count belongs to the program's bytes, to the numbers it was checked with and to the emulator: it is kept in the cache,
and never made twice.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import compiling, emulation, exporting
from edgeprune.compiling import Artifact
from edgeprune.emulation import Emulator
from edgeprune.errors import EdgepruneError, ParityError
from edgeprune.exporting import PARITY_TOLERANCE
from edgeprune.matrix.cache import Cache, fingerprint
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.faults import told
from edgeprune.matrix.stages import INPUT_FILE, REFERENCE_FILE
from edgeprune.schema import CellEnd, CellKey

_COUNT_FILE = "instructions.json"


def emulator_for(device: str) -> Emulator:
    """The emulator of an emulated device; it is not fetched.

    Raises:
        DeviceError: qemu-user is not here.
    """
    return emulator_of_target(_target(device).name)


def emulator_of_target(target: str) -> Emulator:
    """The emulator that runs what was compiled for a target; it is not fetched.

    Raises:
        DeviceError: qemu-user is not here.
    """
    return emulation.find_emulator(compiling.target(target).architecture)


def facts_of(device: str, emulator: Emulator) -> dict[str, Any]:
    """What an emulated device says of itself: the processor that its code is for, and who runs the code.

    Raises:
        DeviceError: the emulator does not start.
    """
    target = _target(device)
    return {
        "machine": target.architecture,
        "processor": target.cpu,
        "features": list(target.features),
        "emulator": emulator.version(),
    }


def _target(device: str) -> compiling.Target:
    name = emulation.target_of(device)
    if name is None:
        raise ValueError(f"{device} is no emulated device")
    return compiling.target(name)


def count_cell(
    session_id: str, key: CellKey, cache: Cache, artifact: Path, network: Path, emulator: Emulator
) -> CellEnd:
    """The end of one cell: its count, or why there is none.

    Args:
        session_id: Of the run.
        key: The cell.
        cache: Where counts are kept.
        artifact: Folder of the compiled network.
        network: Folder with its input and reference output.
        emulator: Where it runs.
    """
    try:
        loaded = compiling.load_artifact(artifact)
        return end_of(session_id, key, loaded, instructions=count(cache, loaded, network, emulator))
    except EdgepruneError as error:
        return end_of(session_id, key, status="failed", reason=told(error))


def count(cache: Cache, artifact: Artifact, network: Path, emulator: Emulator) -> int:
    """Instructions of one inference of a compiled network.

    Args:
        cache: Where counts are kept.
        artifact: A static program for the emulator's architecture.
        network: Folder with the input and the reference output.
        emulator: Where it runs.

    Raises:
        ParityError: under emulation its output differs from the reference by more than 1e-4 relative.
        DeviceError: it fails under emulation.
    """
    files = {"program": artifact.model, "input": network / INPUT_FILE, "reference": network / REFERENCE_FILE}
    ingredients = {
        **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "emulator": emulator.version(),
        "code": fingerprint("emulation", "devices/qemu"),
    }

    def build(folder: Path) -> None:
        _require_parity(artifact.model, network, emulator)
        counted = emulation.count_instructions(artifact.model, emulator)
        (folder / _COUNT_FILE).write_text(json.dumps({"instructions": counted}))

    folder = cache.make("instructions", ingredients, build)
    return int(json.loads((folder / _COUNT_FILE).read_text())["instructions"])


def _require_parity(program: Path, network: Path, emulator: Emulator) -> None:
    reference = np.load(network / REFERENCE_FILE)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        out = Path(folder) / "output.bin"
        emulation.run_program(program, emulator, ["check", "--input", str(network / INPUT_FILE), "--output", str(out)])
        output = np.fromfile(out, dtype=reference.dtype).reshape(reference.shape)
    difference = exporting.parity(reference, output)
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(
            f"the output under emulation differs from the reference by {difference:.1e} relative",
            hint=f"at most {PARITY_TOLERANCE:g} is allowed; nothing was counted",
        )
