"""`manifest.json`: what a results folder is about, asked of what, with which versions. Start with `Manifest`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeprune.errors import ResultsError
from edgeprune.schema import SCHEMA_VERSION, CellKey
from edgeprune.storage import write_whole

MANIFEST_NAME = "manifest.json"


class Manifest(BaseModel):
    """What a run was asked to do, on what; fields that a later version adds are passed over.

    `matrix` and `plan` are dumps of the matrix and of the measuring plan, `seed` decided the order of launches, `cells`
    are dumps of `CellKey` with their `cell_id`, `code` is a hash of the sources that make and measure them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int
    run_id: str
    name: str
    created_at: str
    seed: int
    matrix: dict[str, Any]
    plan: dict[str, Any]
    versions: dict[str, Any] = {}
    code: str = ""
    devices: dict[str, dict[str, Any]] = {}
    git: dict[str, Any] | None = None
    cells: list[dict[str, Any]] = []

    def keys(self) -> list[CellKey]:
        """All cells the matrix asks for, in its order; ValidationError for one that is no cell."""
        return [
            CellKey.model_validate({name: value for name, value in cell.items() if name != "cell_id"})
            for cell in self.cells
        ]


_MACHINE = ("machine", "processor", "board")
# what the kernel keeps for itself differs from one start or one version of it to the next; boards differ by half
_MEMORY_SHARE = 0.05


def other_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """In what two devices of one name are different machines, by their facts; "" if they may be the same."""
    differing = [fact for fact in _MACHINE if before.get(fact) != after.get(fact)]
    memory, now = before.get("memory_bytes"), after.get("memory_bytes")
    if memory != now and not (memory and now and abs(now - memory) <= _MEMORY_SHARE * memory):
        differing.append("memory_bytes")
    return ", ".join(f"{fact} {before.get(fact)} / {after.get(fact)}" for fact in differing)


def read(folder: Path) -> Manifest:
    """The manifest of a results folder.

    Raises:
        ResultsError: The folder or its manifest is missing, unreadable, or of a newer edgeprune.
    """
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder", hint="give a results folder that `edgeprune run` has written")
    path = folder / MANIFEST_NAME
    again = "move it away and run `edgeprune run` on its matrix again: finished cells are in the journal"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(
            f"{path}: {error.strerror}", hint="give a results folder that `edgeprune run` has written"
        ) from error
    except ValueError as error:
        raise ResultsError(f"{path}: not JSON ({error})", hint=again) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ResultsError(
            f"{path}: written with schema {version}, this edgeprune knows {SCHEMA_VERSION}",
            hint="install the edgeprune that wrote it, or a later one",
        )
    try:
        manifest = Manifest.model_validate(content)
        manifest.keys()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"{path}: {field}: {first['msg']}", hint=again) from error
    return manifest


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all; StorageError where that is impossible."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_whole(folder / MANIFEST_NAME, (text + "\n").encode())
