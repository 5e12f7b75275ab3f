"""What is compiled for a device does not depend on whether it answers today, and what cannot be there is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune import manifest, transport
from edgeprune.journal import Journal
from edgeprune.matrix import spec
from edgeprune.matrix.cells import cells
from edgeprune.matrix.device import DeviceInUse, idle_temp_c, ranked_cores, why_not
from edgeprune.matrix.ends import end_of
from edgeprune.matrix.manifest import open_manifest
from edgeprune.matrix.memory import Memory
from edgeprune.matrix.targets import find_targets
from edgeprune.transport import Device

MATRIX = """\
name: boards
data: digits
models: lenet5
prune: [{{method: l1, ratio: 0.5}}]
runtimes: [native, onnxruntime]
devices: {devices}
measure: quick
"""
NOBODY = "pi@127.0.0.1:1"
"""An address where nothing listens."""


def load(folder: Path, devices: str) -> spec.MatrixSpec:
    path = folder / "m.yaml"
    path.write_text(MATRIX.format(devices=devices))
    return spec.load(path)


@pytest.fixture(autouse=True)
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "edgeprune" / "devices.yaml"


def test_what_the_matrix_says_is_not_asked(tmp_path: Path) -> None:
    devices = f"[local, emulated-rpi5, {{name: desk, address: '{NOBODY}', target: rpi4}}]"
    found = find_targets(load(tmp_path, devices), tmp_path / "results")
    assert found.by_device == {"local": "host", "emulated-rpi5": "rpi5", "desk": "rpi4"}
    assert found.problems == {}


def test_what_the_user_s_file_says_is_not_asked(tmp_path: Path, no_file: Path) -> None:
    no_file.parent.mkdir()
    no_file.write_text(f"devices:\n- {{name: desk, address: '{NOBODY}', target: rpi4}}\n")
    found = find_targets(load(tmp_path, "[desk]"), tmp_path / "results")
    assert (found.by_device, found.problems) == ({"desk": "rpi4"}, {})


def test_what_was_found_before_is_remembered_though_the_device_is_away(tmp_path: Path) -> None:
    matrix, results = load(tmp_path, f"['{NOBODY}']"), tmp_path / "results"
    results.mkdir()
    open_manifest(results, matrix, cells(matrix, {NOBODY: "rpi3b"}))
    found = find_targets(matrix, results)
    assert (found.by_device, found.problems) == ({NOBODY: "rpi3b"}, {})
    # the matrix knows better
    stated = load(tmp_path, f"[{{name: '{NOBODY}', target: rpi4}}]")
    assert find_targets(stated, results).by_device == {NOBODY: "rpi4"}


def test_a_device_that_never_answered_has_cells_that_hinder_nobody(tmp_path: Path) -> None:
    matrix, results = load(tmp_path, f"['{NOBODY}', local]"), tmp_path / "results"
    found = find_targets(matrix, results)
    assert found.by_device == {NOBODY: "", "local": "host"}
    assert NOBODY in found.problems
    assert found.problems[NOBODY].hint
    results.mkdir()
    unknown = cells(matrix, found.by_device)
    open_manifest(results, matrix, unknown)
    assert find_targets(matrix, results).by_device[NOBODY] == ""  # asked again, not taken from the manifest
    known = cells(matrix, {NOBODY: "rpi4", "local": "host"})
    changed = {key.device for key in known if key.cell_id not in {one.cell_id for one in unknown}}
    assert changed == {NOBODY}
    open_manifest(results, matrix, known)
    held = json.loads((results / manifest.MANIFEST_NAME).read_text())["cells"]
    assert {cell["target"] for cell in held if cell["device"] == NOBODY} == {"rpi4"}


def test_runtimes_in_python_are_skipped_where_no_python_is() -> None:
    board = transport.connect(Device(name="board", address=NOBODY))
    facts = {"machine": "aarch64", "python": "", "cores": []}
    away = DeviceInUse(board, (), facts, None)
    assert why_not(away, "native") == ""
    assert "python3" in why_not(away, "onnxruntime")
    assert why_not(DeviceInUse(board, (), facts | {"python": "3.11.2"}, None), "onnxruntime") == ""
    here = DeviceInUse(transport.connect("local"), (), facts, None)
    assert why_not(here, "onnxruntime") == ""


def test_the_fastest_cores_come_first() -> None:
    silent = [{"core": core, "max_khz": None, "capacity": None} for core in range(8)]
    phone = {"machine": "aarch64", "sdk": 29, "model": "MI 9", "cores": silent}
    assert ranked_cores(phone) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert ranked_cores(phone | {"cores": silent[:6]}) == [5, 4, 3, 2, 1, 0]
    told = [one | {"max_khz": 2_000_000 if one["core"] in (0, 1) else 1_000_000} for one in silent]
    assert ranked_cores(phone | {"cores": told}) == [1, 0, 7, 6, 5, 4, 3, 2]
    unknown = {"machine": "x86_64", "cores": silent[:2]}
    assert ranked_cores(unknown) == [1, 0]


PI = {"machine": "aarch64", "board": "Raspberry Pi 4 Model B Rev 1.4", "features": "fp asimd crc32"}


@pytest.mark.parametrize(
    ("known_c", "now_c", "idle_c"),
    [
        (None, 48.0, 48.0),
        (None, 79.0, 65.0),  # found hot: its profile's limit
        (41.0, 79.0, 41.0),
        (79.0, 80.0, 65.0),
        (None, None, None),
    ],
)
def test_a_device_that_is_found_hot_is_not_taken_for_idle(
    known_c: float | None, now_c: float | None, idle_c: float | None
) -> None:
    assert idle_temp_c(PI | {"temp_c": known_c}, PI | {"temp_c": now_c}) == idle_c
    unknown = {"machine": "riscv64"}
    assert idle_temp_c(None, unknown | {"temp_c": 90.0}) == 70.0


def test_a_cell_that_was_skipped_for_want_of_python_needs_no_device_any_more(tmp_path: Path) -> None:
    matrix = load(tmp_path, f"['{NOBODY}']")
    keys = cells(matrix, {NOBODY: "rpi4"})
    with Journal.open(tmp_path / "results") as writer:
        memory = Memory(tmp_path / "results", writer, matrix.plan)
        for key in keys:
            if key.runtime == "onnxruntime":
                memory.append(end_of("s", key, status="skipped", reason="no Python"))
        assert {key.runtime for key in memory.to_do(keys)} == {"native"}
