"""Cells on simulated accelerators: equal numbers first, then the cycles of one inference. Nothing is timed there.

Cycles belong to the compiled network, to the image and to the hardware's sources: they are kept in the cache, and
never simulated twice.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import compiling, exporting
from edgeprune.compiling import Artifact, fpga
from edgeprune.errors import EdgepruneError, ParityError
from edgeprune.matrix.cache import Cache, fingerprint
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.faults import told
from edgeprune.matrix.int8 import ACCURACY_FILE
from edgeprune.matrix.stages import INPUT_FILE, NETWORK_FILE, REFERENCE_FILE
from edgeprune.schema import Accelerated, CellEnd, CellKey

INT8_TOLERANCE = 0.03
"""Largest `parity` of an int8 answer: a few of its 255 quanta, since halves are rounded otherwise on each layer."""
_FIGURES_FILE = "cycles.json"


def simulate_cell(
    session_id: str, key: CellKey, cache: Cache, artifact: Path, network: Path, quantised: Path
) -> CellEnd:
    """The end of one cell: its cycles, or why there are none.

    Args:
        session_id: Of the run.
        key: The cell.
        cache: Where cycles are kept.
        artifact: Folder of the compiled network.
        network: Folder with its input.
        quantised: Folder of its int8 form, with the answer that it has to give.
    """
    try:
        loaded = compiling.load_artifact(artifact)
        cycles, accelerated = _figures(cache, loaded, network, quantised)
        accuracy = json.loads((quantised / ACCURACY_FILE).read_text())["accuracy"]
        return end_of(session_id, key, loaded, cycles=cycles, accelerated=accelerated, accuracy=accuracy)
    except EdgepruneError as error:
        return end_of(session_id, key, status="failed", reason=told(error))


def _figures(cache: Cache, artifact: Artifact, network: Path, quantised: Path) -> tuple[int, Accelerated]:
    files = [*artifact.files, network / INPUT_FILE, quantised / REFERENCE_FILE]
    ingredients = {
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        "code": fingerprint("compiling/fpga", "devices/fpga/rtl", "devices/fpga/sim"),
    }

    def build(folder: Path) -> None:
        shape = json.loads((network / NETWORK_FILE).read_text())["input_shape"]
        image = np.fromfile(network / INPUT_FILE, np.float32).reshape(shape)
        done = fpga.Network(artifact.model).run({"input": image})
        difference = exporting.parity(np.load(quantised / REFERENCE_FILE), done.outputs["output"])
        if not difference <= INT8_TOLERANCE:
            raise ParityError(
                f"the output of the core differs from the int8 network's by {difference:.1e} relative",
                hint=f"at most {INT8_TOLERANCE:g} is allowed; its cycles are not told",
            )
        figures = _as_record(artifact, done.figures, difference)
        (folder / _FIGURES_FILE).write_text(json.dumps({"cycles": done.figures.cycles, "accelerated": figures}))

    folder = cache.make("cycles", ingredients, build)
    found = json.loads((folder / _FIGURES_FILE).read_text())
    return int(found["cycles"]), Accelerated.model_validate(found["accelerated"])


def _as_record(artifact: Artifact, figures: fpga.Figures, difference: float) -> dict[str, Any]:
    made = json.loads(artifact.model.read_text())
    return {
        "multipliers": figures.multipliers,
        "macs": figures.macs,
        "busy_cycles": figures.busy_cycles,
        "bytes_read": figures.bytes_read,
        "bytes_written": figures.bytes_written,
        "stalls": figures.stalls,
        "nodes": made["nodes"],
        "host_nodes": [f"{one['name']} ({one['operator']})" for one in made["host"]["nodes"]],
        "host_macs": made["host"]["macs"],
        "parity_rel": difference,
        "layers": [
            {
                "layer": one.name,
                "op": one.operator,
                "in_channels": one.in_channels,
                "out_channels": one.out_channels,
                "rows": one.rows,
                "columns": one.columns,
                "macs": one.macs,
                "cycles": one.cycles,
                "stall_cycles": one.stall_cycles,
                "bytes_moved": one.bytes_moved,
            }
            for one in figures.layers
        ],
    }
