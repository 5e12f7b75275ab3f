"""How a cell ends: the one record that says so."""

from __future__ import annotations

from typing import Any

from edgeprune.compiling import Artifact
from edgeprune.schema import CellEnd, CellKey


def end_of(
    session_id: str,
    key: CellKey,
    artifact: Artifact | None = None,
    *,
    status: str = "ok",
    reason: str = "",
    instructions: int | None = None,
    **more: Any,
) -> CellEnd:
    """The record of a cell's end, with the sizes of its artifact where there is one; `more` are fields of it."""
    return CellEnd.model_validate(
        {
            "session_id": session_id,
            "cell_id": key.cell_id,
            "key": key,
            "status": status,
            "reason": reason,
            "artifact_bytes": artifact and artifact.artifact_bytes,
            "weights_bytes": artifact and artifact.weights_bytes,
            "arena_bytes": artifact and artifact.arena_bytes,
            "instructions": instructions,
            **more,
        }
    )
