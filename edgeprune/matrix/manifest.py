"""`manifest.json`: what a results folder is about; written when the folder is made, checked when it is used again."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import ResultsError
from edgeprune.matrix.cache import versions
from edgeprune.matrix.launch import now
from edgeprune.matrix.spec import MatrixSpec
from edgeprune.schema import SCHEMA_VERSION, CellKey
from edgeprune.storage import write_whole

MANIFEST_NAME = "manifest.json"
_DISTRIBUTIONS = ("edgeprune", "torch", "onnx", "onnxruntime", "apache-tvm", "fvcore", "numpy")
# what decides the numbers of a cell beside its key: with other values it would be another measurement
_MUST_STAY = ("name", "data", "measure", "train", "finetune")
_GIT_SECONDS = 10


def open_manifest(folder: Path, spec: MatrixSpec, cells: Sequence[CellKey]) -> dict[str, Any]:
    """The folder's manifest: a new one, or the old one with the cells of this matrix.

    Lists of a matrix may grow or shrink between two runs; how a cell is made and measured may not.

    Raises:
        ResultsError: the folder holds another run.
        StorageError: it cannot be written.
    """
    path = folder / MANIFEST_NAME
    matrix = spec.model_dump(mode="json")
    manifest = read_manifest(path) if path.exists() else _new(spec)
    old = manifest.get("matrix", matrix)
    for key in _MUST_STAY:
        if old[key] != matrix[key]:
            raise ResultsError(
                f"{folder}: holds a run with {key}: {_short(old[key])}, and the matrix now says {_short(matrix[key])}",
                hint="measure the changed matrix into another folder with --results DIR",
            )
    manifest |= {"matrix": matrix, "cells": [{"cell_id": key.cell_id} | key.model_dump() for key in cells]}
    write_manifest(folder, manifest)
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The contents of a manifest file.

    Raises:
        ResultsError: it cannot be read or is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(
            f"{path}: {error.strerror}", hint="give a folder that `edgeprune run` has written"
        ) from error
    except ValueError:
        content = None
    if not isinstance(content, dict) or "matrix" not in content:
        raise ResultsError(
            f"{path}: is damaged", hint="move it away and run the same command: the journal has the data"
        )
    return content


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    write_whole(folder / MANIFEST_NAME, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def installed_versions() -> dict[str, str]:
    """Versions of edgeprune and of the libraries that numbers depend on."""
    return versions(*_DISTRIBUTIONS)


def _new(spec: MatrixSpec) -> dict[str, Any]:
    created = now()
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{spec.name}-{created[:10]}-{secrets.token_hex(3)}",
        "name": spec.name,
        "created_at": created,
        "seed": secrets.randbits(32),
        "plan": spec.plan.model_dump(),
        "versions": installed_versions(),
        "devices": {},
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """The commit of the current directory's repository and whether it was changed; None outside of one."""

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else json.dumps({k: v for k, v in value.items() if v is not None})
