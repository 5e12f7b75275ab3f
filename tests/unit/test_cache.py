"""An artifact is there whole or not at all, and other ingredients make another artifact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.matrix.cache import Cache, fingerprint
from edgeprune.storage import partial_folder


class Maker:
    """Counts how often it is asked to build."""

    def __init__(self, text: str = "made") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(self.text)


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    cache, maker = Cache(tmp_path), Maker()
    first = cache.make("stage", {"a": 1, "b": [2]}, maker)
    assert cache.make("stage", {"b": [2], "a": 1}, maker) == first
    assert maker.calls == 1
    assert cache.make("stage", {"a": 2, "b": [2]}, maker) != first
    assert maker.calls == 2


@pytest.mark.parametrize("harm", ["change", "cut", "remove", "mark"])
def test_a_damaged_artifact_is_made_again(tmp_path: Path, harm: str) -> None:
    cache, maker = Cache(tmp_path), Maker()
    folder = cache.make("stage", {}, maker)
    file = folder / "inner" / "file"
    if harm == "change":
        file.write_text("fade")
    elif harm == "cut":
        file.write_text("")
    elif harm == "remove":
        file.unlink()
    else:
        (folder / "made_from.json").write_text("{")
    assert cache.make("stage", {}, maker) == folder
    assert file.read_text() == "made"
    assert maker.calls == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        Cache(tmp_path).make("stage", {}, failing)
    assert list((tmp_path / "stage").iterdir()) == []


def test_what_killed_processes_left_half_made_goes(tmp_path: Path) -> None:
    program = f"""
import os, pathlib
from edgeprune.storage import partial_folder
with partial_folder(pathlib.Path({str(tmp_path / "wheels")!r})) as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert len(list(tmp_path.glob("wheels/.partial-*/half"))) == 1
    with partial_folder(tmp_path / "wheels") as mine:
        assert list((tmp_path / "wheels").iterdir()) == [mine]
    assert not mine.exists()
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    Cache(tmp_path).sweep()
    assert list((tmp_path / "wheels").iterdir()) == []


def test_the_loser_of_a_race_takes_the_winner_s_work(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def slow(folder: Path) -> None:
        cache.make("stage", {}, Maker("winner"))
        (folder / "file").write_text("loser")

    folder = cache.make("stage", {}, slow)
    assert (folder / "inner" / "file").read_text() == "winner"


def test_fingerprints_differ_by_room() -> None:
    assert fingerprint("models") != fingerprint("datasets")
    assert fingerprint("models") == fingerprint("models")
