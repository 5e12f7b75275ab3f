"""Targets: every shipped one can be compiled for, a user's own is one file, and mistakes in it are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm

from edgeprune import compiling
from edgeprune.errors import UnknownNameError, UserError

PHONES = ["galaxy-tab-s6-lite", "huawei-p20", "xiaomi-mi9"]
BOARDS = ["rpi-zero2", "rpi2", "rpi3b", "rpi4", "rpi5"]
NAMES = sorted(["android-arm64", "host", "linux-arm64", "linux-x86-64", *PHONES, *BOARDS])
OWN = "triple: aarch64-linux-gnu\ncpu: cortex-a55\nfeatures: [neon]\nvector_bits: 128\nvector_registers: 32\n"


def test_names() -> None:
    assert compiling.targets() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_tvm_takes_every_target(name: str) -> None:
    target = compiling.target(name)
    made = tvm.target.Target(target.tvm)
    assert str(made.attrs["mtriple"]) == target.triple
    assert target.static_triple.endswith(("musl", "musleabihf"))


def test_a_file_is_a_target(tmp_path: Path) -> None:
    (tmp_path / "board.yaml").write_text(OWN + "l2_bytes: 1000\n")
    target = compiling.target(str(tmp_path / "board.yaml"))
    assert (target.name, target.architecture, target.cpu) == ("board", "aarch64", "cortex-a55")
    assert (target.l1_bytes, target.l2_bytes) == (None, 1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OWN.replace("128", "100"), "vector_bits: input should be 128, 256 or 512"),
        (OWN + "colour: red\n", "colour: extra inputs are not permitted"),
        (OWN.replace("triple", "tripel"), "triple: field required"),
        (OWN.replace("aarch64-linux-gnu", "; rm"), "triple: string should match"),
        ("a: [", "is no YAML"),
        ("text", "input should be"),
    ],
)
def test_mistakes_in_a_file_are_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "board.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        compiling.target(str(tmp_path / "board.yaml"))


def test_no_file_no_name_no_architecture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        compiling.target(str(tmp_path / "nothing.yaml"))
    with pytest.raises(UnknownNameError, match="rp4") as raised:
        compiling.target("rp4")
    assert "rpi4" in str(raised.value.hint)
    (tmp_path / "board.yaml").write_text(OWN.replace("aarch64", "riscv64"))
    with pytest.raises(UserError, match="no static program can be made for riscv64"):
        _ = compiling.target(str(tmp_path / "board.yaml")).static_triple
