"""Packages for boards: which may be there at all, which wheels fit, and that what was pushed can be loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeprune import transport
from edgeprune.errors import DeviceError, GarbledAnswerError, RemoteError
from edgeprune.resources import devices_folder
from edgeprune.transport.wheels import BoardPython, Platform, _is_taken, _platform

UNPACK = devices_folder() / "workers" / "unpack_packages.py"
TOLD = {"version": [3, 11], "implementation": "cpython", "machine": "aarch64", "bits": 64, "libc": ["glibc", "2.36"]}


@pytest.mark.parametrize(
    ("runtime", "facts", "word"),
    [
        ("onnxruntime", {"machine": "aarch64", "python": "3.11.2"}, ""),
        ("tvm", {"machine": "aarch64", "python": "3.11.2"}, ""),
        ("torch", {"machine": "aarch64", "python": "3.11.2"}, "this machine alone"),
        ("onnxruntime", {"machine": "aarch64", "python": ""}, "apt-get install python3"),
        ("onnxruntime", {"machine": "aarch64", "python": "3.11", "sdk": 34}, "Android"),
        ("onnxruntime", {"machine": "armv7l", "python": "3.11.2"}, "no wheels of onnxruntime for armv7l"),
    ],
)
def test_a_runtime_that_cannot_be_there_is_told_why(runtime: str, facts: dict[str, Any], word: str) -> None:
    reason = transport.why_not(runtime, facts)
    assert (word in reason) if word else reason == ""


def test_wheels_of_the_device_s_c_library_and_older_ones_fit() -> None:
    tags = _platform(TOLD, "pi").tags
    assert tags[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= set(tags)
    assert "manylinux_2_37_aarch64" not in tags
    assert Platform((3, 9), "aarch64", 31).tags[0] == "manylinux_2_31_aarch64"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 32}, "a 32-bit Python on a 64-bit kernel"),
        ({"bits": 32, "machine": "armv7l"}, "a 32-bit Python, and"),
        ({"libc": ["", ""]}, "another C library"),
        ({"implementation": "pypy"}, "a pypy"),
    ],
)
def test_a_python_that_no_wheel_fits_is_told(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DeviceError, match=words) as caught:
        _platform(TOLD | change, "pi")
    assert "native" in str(caught.value.hint)


def test_a_python_that_says_nothing_is_told() -> None:
    with pytest.raises(RemoteError, match="says nothing of itself"):
        _platform({"version": "three"}, "pi")


@pytest.mark.parametrize("said", ['{"ok":"unpack"}', '{"ok":"unpack","there":"maybe"}'])
def test_an_unpacking_that_says_nothing_is_told(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "python").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "python").chmod(0o755)
    way = transport.connect("local")
    python = BoardPython(way, str(tmp_path / "python"))
    python._bundles["tvm"] = tmp_path / "tvm.zip"  # it is fetched by then
    with pytest.raises(GarbledAnswerError, match="there"):
        python.command("tvm")
    way.close()


def test_of_tvm_only_the_runtime_is_pushed() -> None:
    assert _is_taken("apache-tvm", "tvm/lib/libtvm_runtime.so")
    assert _is_taken("apache-tvm", "apache_tvm-0.27.0.dist-info/METADATA")
    assert not _is_taken("apache-tvm", "tvm/lib/libtvm_compiler.so")
    assert not _is_taken("apache-tvm", "tvm/relax/__init__.py")
    assert _is_taken("onnxruntime", "onnxruntime/capi/libonnxruntime.so.1.31.1")
    assert not _is_taken("numpy", "numpy/_core/tests/test_umath.py")


def unpack(folder: Path, *archive: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(UNPACK), str(folder), *map(str, archive)], capture_output=True, check=False
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == ("ok" in answer)
    return answer


def test_an_archive_is_unpacked_whole_or_not_at_all(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.writestr("package/__init__.py", "answer = 42\n" * 1000)
    whole = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "torn.zip").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[45] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for name in ("torn.zip", "damaged.zip", "nothing.zip"):
        assert "error" in unpack(tmp_path / "there", tmp_path / name)
        assert unpack(tmp_path / "there") == {"ok": "unpack", "there": False}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.zip", "good.zip", "torn.zip"]
    assert unpack(tmp_path / "there", tmp_path / "good.zip") == {"ok": "unpack", "there": True}
    assert (tmp_path / "there" / "package" / "__init__.py").read_text().startswith("answer = 42")
    assert unpack(tmp_path / "there") == {"ok": "unpack", "there": True}


def test_a_python_without_packages_finds_those_that_were_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine as the board: its own Python, outside of any environment, has no ONNX Runtime."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    board = os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    if not shutil.which(board):
        pytest.fail(f"{board}: the interpreter that this environment was made of is not there")
    way = transport.connect("local")
    try:
        assert way.acquire()
        command = BoardPython(way, board).command("onnxruntime")
        assert BoardPython(way, board).command("onnxruntime") == command
        program = "import json, onnxruntime; print(json.dumps({'at': onnxruntime.__file__}))"
        channel = way.run([*command, "-s", "-c", program], None)
        assert str(tmp_path) in channel.receive(60)["at"]
        channel.stop()
    finally:
        way.close()
