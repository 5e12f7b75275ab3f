"""Runs on an emulated device, as a user starts them: skipped without qemu-user, counted with it, counted once."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = """\
name: counts
data: digits
models: [lenet5]
prune:
  - {method: l1, ratio: [0.5], seed: 0}
runtimes: [native]
devices: [emulated-rpi4]
train: {epochs: 1}
finetune: {epochs: 1}
"""
QEMU = "qemu-aarch64"


def edgeprune(place: Path, path: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EDGEPRUNE_CACHE": str(place / "cache"), "PATH": path}
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *words],
        cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def cells(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def watched_qemu(place: Path, qemu: str) -> str:
    """A search path on which qemu writes down what it is asked to run, and runs it."""
    (place / "bin").mkdir()
    wrapper = place / "bin" / QEMU
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {place}/asked\nexec {qemu} "$@"\n')
    wrapper.chmod(0o755)
    return f"{place / 'bin'}:{os.environ['PATH']}"


def test_without_qemu_cells_are_skipped_and_with_it_they_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MATRIX)
    (tmp_path / "empty").mkdir()
    without = edgeprune(tmp_path, str(tmp_path / "empty"), "run", "m.yaml")
    assert without.returncode == 0, without.stderr
    assert "0 ok, 0 invalid, 0 failed, 3 skipped" in without.stdout
    assert "and 2 more cells: qemu-user is not here" in without.stdout
    assert without.stdout.count("apt install qemu-user") == 1
    assert "nothing is timed" in without.stdout
    folder = tmp_path / "results" / "counts"
    assert {(cell["status"], cell["instructions"]) for cell in cells(folder)} == {("skipped", "")}
    assert {"qemu-user is not here" in cell["reason"] for cell in cells(folder)} == {True}
    status = edgeprune(tmp_path, str(tmp_path / "empty"), "status", "results/counts")
    assert "emulated-rpi4\t3\t0\t0\t0\t3\t0" in status.stdout

    qemu = shutil.which(QEMU)
    if qemu is None:
        assert not os.environ.get("CI"), "in CI qemu-user must be installed"
        pytest.skip("qemu-user is not installed: apt install qemu-user")
    path = watched_qemu(tmp_path, qemu)
    done = edgeprune(tmp_path, path, "run", "m.yaml")
    assert done.returncode == 0, done.stderr
    assert "ok: lenet5 l1 0.5 shrunk, native on emulated-rpi4, 1 thread" in done.stderr
    counts = {cell["variant"]: int(cell["instructions"]) for cell in cells(folder)}
    assert {cell["status"] for cell in cells(folder)} == {"ok"}
    assert 0 < 2 * counts["shrunk"] < counts["masked"]
    assert counts["masked"] == pytest.approx(counts["dense"], rel=1e-3)
    programs = [line for line in (tmp_path / "asked").read_text().splitlines() if line != "--version"]
    # a check and two counts of each
    assert len(programs) == 3 * 3

    again = edgeprune(tmp_path, path, "run", "m.yaml", "--results", "results/again")
    assert again.returncode == 0, again.stderr
    assert {cell["variant"]: int(cell["instructions"]) for cell in cells(tmp_path / "results" / "again")} == counts
    assert [line for line in (tmp_path / "asked").read_text().splitlines() if line != "--version"] == programs
    facts = (tmp_path / "results" / "again" / "manifest.json").read_text()
    assert "cortex-a72" in facts
    assert "qemu-aarch64 version" in facts


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    devices = edgeprune(tmp_path, str(tmp_path / "empty"), "devices")
    assert "emulated-rpi2\tneeds qemu-user\tcortex-a7, counts instructions\trpi2" in devices.stdout
    assert "apt install qemu-user" in devices.stdout
    doctor = edgeprune(tmp_path, str(tmp_path / "empty"), "doctor", "emulated-rpi2")
    assert "warn\temulator\tno qemu-user for aarch64, armv7l, x86_64" in doctor.stdout
    assert "apt install qemu-user" in doctor.stdout
    assert "ok\tlinker\tziglang" in doctor.stdout
