"""The manifest of a run: made with the results folder, checked when the folder is used again. See `open_manifest`."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune import manifest
from edgeprune.errors import ResultsError
from edgeprune.manifest import Manifest
from edgeprune.matrix.cache import fingerprint, versions
from edgeprune.matrix.launch import now
from edgeprune.matrix.spec import MatrixSpec, ShrinkSpec
from edgeprune.schema import SCHEMA_VERSION, CellKey

_DISTRIBUTIONS = ("edgeprune", "torch", "onnx", "onnxruntime", "apache-tvm", "fvcore", "numpy")
# what decides the numbers of a cell beside its key: with other values it would be another measurement
_MUST_STAY = ("name", "data", "measure", "train", "finetune", "shrink")
_GIT_SECONDS = 10


def open_manifest(folder: Path, spec: MatrixSpec, cells: Sequence[CellKey]) -> Manifest:
    """The folder's manifest: a new one, or the old one with the cells of this matrix.

    Lists of a matrix may grow or shrink between two runs; how a cell is made and measured may not.

    Raises:
        ResultsError: the folder holds another run.
        StorageError: it cannot be written.
    """
    matrix = spec.model_dump(mode="json")
    # a key that is younger than the folder had its default
    defaults = {"shrink": ShrinkSpec().model_dump(mode="json")}
    exists = (folder / manifest.MANIFEST_NAME).exists()
    opened = manifest.read(folder) if exists else _new(spec, matrix)
    for key in _MUST_STAY:
        before = opened.matrix.get(key, defaults.get(key))
        if before != matrix[key]:
            raise ResultsError(
                f"{folder}: holds a run with {key}: {_short(before)}, and the matrix now says {_short(matrix[key])}",
                hint="measure the changed matrix into another folder with --results DIR",
            )
    dumped = [{"cell_id": key.cell_id} | key.model_dump() for key in cells]
    opened = opened.model_copy(update={"schema_version": SCHEMA_VERSION, "matrix": matrix, "cells": dumped})
    manifest.write(folder, opened)
    return opened


def installed_versions() -> dict[str, str]:
    """Versions of edgeprune and of the libraries that numbers depend on."""
    return versions(*_DISTRIBUTIONS)


def code_hash() -> str:
    """Hash of the sources that decide what is made and how it is measured."""
    rooms = ("models", "datasets", "training", "pruning", "shrinking", "counting", "exporting", "compiling")
    return fingerprint(
        *rooms, "transport", "measuring", "matrix/launch.py", "matrix/stages.py", "matrix/sources.py", "devices"
    )


def require_same_making(folder: Path, opened: Manifest) -> None:
    """Refuse to add launches to those that other versions made: a cell must be one thing.

    Raises:
        ResultsError: a library or edgeprune itself has changed since the folder was begun.
    """
    now_installed = installed_versions()
    names = sorted({*opened.versions, *now_installed})
    changed = [
        f"{name} {opened.versions.get(name)} -> {now_installed.get(name)}"
        for name in names
        if opened.versions.get(name) != now_installed.get(name)
    ]
    if not changed and opened.code != code_hash():
        changed = ["edgeprune's own code"]
    if changed:
        raise ResultsError(
            f"{folder}: was begun with other versions ({', '.join(changed)}), and holds launches made with them",
            hint="finish it with those versions, or measure anew into another folder with --results DIR",
        )


def _new(spec: MatrixSpec, matrix: dict[str, Any]) -> Manifest:
    created = now()
    return Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=f"{spec.name}-{created[:10]}-{secrets.token_hex(3)}",
        name=spec.name,
        created_at=created,
        seed=secrets.randbits(32),
        matrix=matrix,
        plan=spec.plan.model_dump(),
        versions=installed_versions(),
        code=code_hash(),
        git=_git_state(),
    )


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
