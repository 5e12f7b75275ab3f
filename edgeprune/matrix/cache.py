"""Artifacts, kept under a hash of everything that made them; resuming a run and skipping finished work are this.

    folder = cache.make("dense", {"model": "resnet20", ...}, build)

calls `build(folder)` once for these ingredients, ever. A folder appears under its final name only when it is
complete, and is checked against the hashes of its files whenever it is taken from the cache; a damaged one is made
again. Ingredients hold the sources of the rooms that do the work (`fingerprint`) and the versions of their libraries,
so a newer edgeprune never takes what an older one made differently.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError
from edgeprune.resources import devices_folder
from edgeprune.storage import partial_folder, sha256, storage_error, sweep_partial

_MARK = "made_from.json"
_PACKAGE = Path(__file__).resolve().parent.parent


class Cache:
    """A folder of artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder that `build` filled for these ingredients, now or earlier.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        final = self.root / stage / key(ingredients)
        if _is_whole(final):
            return final
        try:
            with partial_folder(final.parent) as partial:
                build(partial)
                _seal(partial, ingredients)
                _move(partial, final)
            shutil.rmtree(self.unfinished(stage, ingredients), ignore_errors=True)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, final) from error
        return final

    def unfinished(self, stage: str, ingredients: Mapping[str, Any]) -> Path:
        """Where the work on these ingredients may leave what it can go on from; gone once `make` has the result."""
        return self.root / "unfinished" / stage / key(ingredients)

    def sweep(self) -> None:
        """Remove what killed processes of this machine left half-made."""
        for stage in self.root.glob("*/"):
            sweep_partial(stage)


def key(ingredients: Mapping[str, Any]) -> str:
    """Hexadecimal hash of the ingredients, 24 characters."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


_SOURCES = (".py", ".sh", ".c", ".h", ".sv", ".cpp")


@lru_cache
def fingerprint(*rooms: str) -> str:
    """Hash of the sources of rooms or files: the package's (`"pruning"`, `"matrix/stages.py"`), and `"devices/..."`."""
    digest = hashlib.sha256()
    for room in rooms:
        first, _, inner = room.partition("/")
        place = devices_folder() / inner if first == "devices" else _PACKAGE / room
        sources = [place] if place.is_file() else place.rglob("*")
        for source in sorted(source for source in sources if source.suffix in _SOURCES):
            digest.update(source.relative_to(place.parent).as_posix().encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions of some distributions, without importing them."""
    return {name: metadata.version(name) for name in distributions}


def _seal(folder: Path, ingredients: Mapping[str, Any]) -> None:
    """Write down what the folder holds and was made from, and sync it."""
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in _files(folder)}
    mark = folder / _MARK
    mark.write_text(json.dumps({"ingredients": ingredients, "sha256": hashes}, indent=1, sort_keys=True))
    for path in [*_files(folder), mark]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move(partial: Path, final: Path) -> None:
    """Give a folder its final name; another process may have been faster, and its work is as good."""
    if final.exists() and not _is_whole(final):
        shutil.rmtree(final)
    try:
        partial.rename(final)
    except OSError:
        if not _is_whole(final):
            raise


def _is_whole(folder: Path) -> bool:
    try:
        hashes: dict[str, str] = json.loads((folder / _MARK).read_text())["sha256"]
        return all(sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, KeyError):
        return False


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MARK)
