"""What compiling leaves: the files of one network for one runtime, and what is known of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import CompileError
from edgeprune.storage import write_whole

_FILE = "artifact.json"
_VERSION = 1


@dataclass(frozen=True)
class Built:
    """What a runtime's compiler made in its folder; paths are relative to it."""

    model: str
    weights_bytes: int | None = None
    arena_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """A compiled network.

    Attributes:
        runtime: Name of the runtime.
        target: Name of the target.
        threads: Threads the network is compiled for.
        model: The file that the worker loads.
        files: All files that the device needs, `model` among them.
        weights_bytes: Bytes of the weights as stored, None if unknown.
        arena_bytes: Bytes of the planned storage between kernels, None if unknown.
        notes: Sentences for the report.
    """

    runtime: str
    target: str
    threads: int
    model: Path
    files: tuple[Path, ...]
    weights_bytes: int | None = None
    arena_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def artifact_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    def to_json(self) -> Path:
        """Write `artifact.json` beside the model, paths relative to it.

        Raises:
            StorageError: it cannot be written.
        """
        folder = self.model.parent
        fields = {
            "version": _VERSION,
            "runtime": self.runtime,
            "target": self.target,
            "threads": self.threads,
            "model": self.model.name,
            "files": [file.relative_to(folder).as_posix() for file in self.files],
            "weights_bytes": self.weights_bytes,
            "arena_bytes": self.arena_bytes,
            "notes": list(self.notes),
        }
        return write_whole(folder / _FILE, (json.dumps(fields, indent=1) + "\n").encode())

    @classmethod
    def from_json(cls, path: Path) -> Artifact:
        """Read an `artifact.json`.

        Raises:
            CompileError: it is missing or damaged, or a file that it names is.
        """
        hint = "compile the network again"
        try:
            fields = json.loads(path.read_text())
            if fields.pop("version") != _VERSION:
                raise CompileError(f"{path} was written by another version of edgeprune", hint=hint)
            files = tuple(path.parent / name for name in fields.pop("files"))
            notes = tuple(fields.pop("notes"))
            artifact = cls(**{**fields, "model": path.parent / fields["model"]}, files=files, notes=notes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CompileError(f"{path} is missing or damaged", hint=hint, detail=str(error)) from error
        missing = [file for file in artifact.files if not file.is_file()]
        if missing:
            raise CompileError(f"{missing[0]} is named in {path.name} and missing", hint=hint)
        return artifact


def load_artifact(folder: Path) -> Artifact:
    """The artifact that a folder holds.

    Raises:
        CompileError: there is none, or it is damaged.
    """
    return Artifact.from_json(folder / _FILE)
