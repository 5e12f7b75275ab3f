"""Static programs of real networks: the numbers of ONNX Runtime, here and on emulated processors; sizes; counts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeprune as ep
from edgeprune import compiling, emulation
from edgeprune.compiling import Artifact
from edgeprune.errors import CompileError, DeviceError
from tests.unit.native.emulators import emulator
from tests.unit.onnx_nets import Net, reference

TOLERANCE = 1e-4
Program = Callable[..., Artifact]


def export(model: torch.nn.Module, size: int, path: Path) -> Path:
    ep.export_onnx(model.eval(), torch.randn(1, 3, size, size), path)
    return path


def answer(artifact: Artifact, image: np.ndarray, target: str, threads: int = 1) -> np.ndarray:
    """What a program answers, here or under emulation."""
    folder = artifact.model.parent
    image.astype(np.float32).tofile(folder / "in.bin")
    words = ["check", "--input", str(folder / "in.bin"), "--output", str(folder / "out.bin"), "--threads", str(threads)]
    if target == "host":
        subprocess.run([str(artifact.model), *words], check=True, capture_output=True)
    else:
        emulation.run_program(artifact.model, emulator(target), words)
    return np.fromfile(folder / "out.bin", np.float32)


def difference(path: Path, artifact: Artifact, target: str, threads: int = 1) -> float:
    """Largest difference to ONNX Runtime, over its largest number."""
    shape = json.loads(subprocess_facts(artifact, target))["inputs"][0]["shape"]
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = reference(path, image).ravel()
    return float(np.abs(answer(artifact, image, target, threads) - want).max() / np.abs(want).max())


def subprocess_facts(artifact: Artifact, target: str) -> str:
    if target == "host":
        return subprocess.run([str(artifact.model), "facts"], check=True, capture_output=True, text=True).stdout
    return emulation.run_program(artifact.model, emulator(target), ["facts"])


def shrunk(name: str, size: int) -> torch.nn.Module:
    """A network without a random half of its filters: ragged widths."""
    torch.manual_seed(0)
    model, image = ep.models.build(name, num_classes=10).eval(), torch.randn(1, 3, size, size)
    masks = ep.prune(model, image, method="random", ratio=0.5)
    return ep.shrink(masks.apply(model), image).model


@pytest.fixture(scope="session")
def resnet20(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return export(ep.models.build("resnet20", num_classes=10), 32, tmp_path_factory.mktemp("onnx") / "resnet20.onnx")


@pytest.fixture(scope="session")
def program(resnet20: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """ResNet-20 for a target and a number of threads, compiled the first time that a test asks."""
    place = tmp_path_factory.mktemp("programs")

    @cache
    def compiled(target: str = "host", threads: int = 1) -> Artifact:
        out = place / f"{target}-{threads}"
        return compiling.compile_onnx(resnet20, out, runtime="native", target=target, threads=threads)

    return compiled


@pytest.mark.parametrize("target", ["host", "linux-x86-64", "rpi4", "rpi2", "android-arm64"])
def test_resnet20_everywhere(target: str, resnet20: Path, program: Program) -> None:
    artifact = program(target)
    assert difference(resnet20, artifact, target) <= TOLERANCE
    assert artifact.weights_bytes is not None
    if target != "linux-x86-64":  # its 16 registers of 256 bit take more code: 153 KB
        assert artifact.artifact_bytes - artifact.weights_bytes <= 128 * 1024


@pytest.mark.parametrize("target", ["rpi3b", "rpi2"])
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_shrunk_networks_with_ragged_widths(name: str, target: str, tmp_path: Path) -> None:
    path = export(shrunk(name, 32), 32, tmp_path / "net.onnx")
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native", target=target)
    assert difference(path, artifact, target) <= TOLERANCE


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_kernels(threads: int, resnet20: Path, program: Program) -> None:
    artifact = program(threads=2)
    assert difference(resnet20, artifact, "host", threads) <= TOLERANCE


def test_memory_beyond_what_was_planned_is_small(program: Program) -> None:
    artifact = program()
    facts = json.loads(subprocess_facts(artifact, "host"))
    words = [str(artifact.model), "measure", "--samples", "10", "--seconds", "0"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    end = json.loads(lines[-1])
    planned = facts["weights_bytes"] + facts["arena_bytes"] + facts["workspace_bytes"]
    assert end["peak_rss_bytes"] - planned <= 512 * 1024
    assert end["workspace_peak_bytes"] <= facts["workspace_bytes"]


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(a + b), b * 2.0

    given = (torch.randn(1, 3, 6, 6), torch.randn(1, 3, 6, 6))
    ep.export_onnx(Two(), given, tmp_path / "two.onnx")
    artifact = compiling.compile_onnx(tmp_path / "two.onnx", tmp_path / "out", runtime="native")
    words = [str(artifact.model), "check"]
    for number, tensor in enumerate(given):
        tensor.numpy().tofile(tmp_path / f"in{number}.bin")
        words += ["--input", str(tmp_path / f"in{number}.bin"), "--output", str(tmp_path / f"out{number}.bin")]
    subprocess.run(words, check=True, capture_output=True)
    for number, want in enumerate(Two()(*given)):
        got = np.fromfile(tmp_path / f"out{number}.bin", np.float32)
        np.testing.assert_allclose(got, want.numpy().ravel(), rtol=1e-6)


def test_c_sources_build_with_another_compiler(resnet20: Path, tmp_path: Path) -> None:
    compiling.emit_c(resnet20, tmp_path / "c", target="rpi4")
    assert "tvm/" not in (tmp_path / "c" / "kernels.c").read_text()
    subprocess.run(["make", "-s", "-C", str(tmp_path / "c"), "CC=gcc", "CFLAGS=-O1"], check=True)
    program = tmp_path / "c" / "program"
    artifact = Artifact("native", "host", 1, program, (program,))
    assert difference(resnet20, artifact, "host") <= TOLERANCE


def test_counts_of_instructions_repeat(program: Program) -> None:
    here = emulator("rpi4")
    artifact = program("rpi4")
    first, second = (emulation.count_instructions(artifact.model, here) for _ in range(2))
    assert abs(first - second) <= 1e-4 * first
    assert first > 2_500_000, "ResNet-20 has 10.2 million multiply-adds of four numbers; Winograd saves at most 3 of 4"
    assert first <= 12_800_000


def test_a_program_for_another_processor_is_told(program: Program) -> None:
    with pytest.raises(DeviceError, match="ended with status"):
        emulation.run_program(program("rpi2").model, emulator("rpi4"), ["facts"])


def test_no_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((1, 3, 8, 8))
    path = net.save(tmp_path / "net.onnx", net.conv("x", 3, 5, 3))
    monkeypatch.setenv("EDGEPRUNE_CC", "no-such-compiler")
    with pytest.raises(CompileError, match="names no-such-compiler"):
        compiling.compile_onnx(path, tmp_path / "out", runtime="native", target="rpi4")
    monkeypatch.setenv("EDGEPRUNE_CC", "false")
    with pytest.raises(CompileError, match="could not link"):
        compiling.compile_onnx(path, tmp_path / "out", runtime="native", target="rpi4")
    assert not (tmp_path / "out").exists()


def test_a_compiler_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CC", "gcc -O1")
    net = Net((1, 3, 8, 8))
    path = net.save(tmp_path / "net.onnx", net.conv("x", 3, 5, 3))
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native")
    assert difference(path, artifact, "host") <= TOLERANCE
