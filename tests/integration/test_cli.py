"""The command from a subprocess: what it lists, and how it tells a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

import edgeprune as ep
from edgeprune.transport import LocalTransport


def edgeprune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EDGEPRUNE_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_help_names_every_verb(tmp_path: Path) -> None:
    done = edgeprune(tmp_path, "--help")
    assert done.returncode == 0
    for verb in ("run", "report", "status", "shrink", "doctor", "devices", "models", "methods", "targets"):
        assert f"    {verb}" in done.stdout
        assert edgeprune(tmp_path, verb, "--help").returncode == 0


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("models", ["lenet5", "resnet20", "resnet110"]),
        ("methods", ["l1", "l2", "random"]),
        ("targets", ["host"]),
        ("devices", ["local"]),
    ],
)
def test_lists_are_tab_separated_in_a_pipe(tmp_path: Path, verb: str, names: list[str]) -> None:
    done = edgeprune(tmp_path, verb)
    assert done.returncode == 0
    header, *lines = done.stdout.splitlines()
    assert {line.split("\t")[0] for line in lines} >= set(names)
    assert {line.count("\t") for line in lines} == {header.count("\t")}


def test_doctor_says_what_was_found(tmp_path: Path) -> None:
    done = edgeprune(tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    assert f"torch {torch.__version__.split('+')[0]}" in done.stdout
    assert "FAIL" not in done.stdout


def test_devices_clean_leaves_nothing_but_what_a_run_holds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
        way = LocalTransport()
    assert way.acquire()
    try:
        (pushed,) = way.push([tmp_path / "file"])
        held = edgeprune(tmp_path, "devices", "clean", "local")
        assert (held.returncode, Path(pushed).exists()) == (1, True)
        assert "not cleaned: local: in use" in held.stdout
    finally:
        way.close()
    done = edgeprune(tmp_path, "devices", "clean", "local")
    assert (done.returncode, done.stdout) == (0, "clean: local\n")
    assert not list((tmp_path / "cache").glob("device-local*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quickstrat"], ["no matrix file 'quickstrat'", "did you mean quickstart?"]),
        (["run", "quickstart", "--devices", "pi"], ["unknown device 'pi'", "local"]),
        (["report", "nothing-here"], ["nothing-here"]),
        (["status", "nothing-here"], ["nothing-here", "edgeprune run"]),
        (["doctor", "pi"], ["unknown device 'pi'"]),
        (["shrink", "resnet21", "--weights", "w.pt", "-o", "o.onnx"], ["unknown model 'resnet21'", "resnet20"]),
        (["shrink", "lenet5", "--weights", "w.pt", "-o", "o.onnx"], ["no weights file 'w.pt'"]),
        (["shrink", "lenet5"], ["--weights"]),
        (["frobnicate"], ["frobnicate"]),
        ([], ["VERB"]),
    ],
)
def test_a_mistake_ends_with_one_message_and_status_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = edgeprune(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = edgeprune(tmp_path, "report", "nothing-here", "--debug")
    assert "Traceback" in done.stderr
    assert "ResultsError" in done.stderr


def test_a_user_s_masked_network_is_shrunk_to_onnx(tmp_path: Path) -> None:
    model = ep.models.build("resnet20", 10, 3, seed=1)
    example = torch.randn(2, 3, 32, 32)
    masked = ep.prune(model, example, method="l1", ratio=0.5).apply(model).eval()
    save_file(masked.state_dict(), tmp_path / "masked.safetensors")
    done = edgeprune(tmp_path, "shrink", "resnet20", "--weights", "masked.safetensors", "-o", "out/shrunk.onnx")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "shrunk.onnx"))
    (name,) = [one.name for one in session.get_inputs()]
    with torch.inference_mode():
        expected = masked(example[:1]).numpy()
    (got,) = session.run(None, {name: example[:1].numpy()})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert (tmp_path / "out" / "shrunk.onnx").stat().st_size < 0.5 * (tmp_path / "masked.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state | {"conv1.weight": torch.zeros(16, 1, 3, 3)}, ["conv1.weight", "[16, 1, 3, 3]"]),
        (lambda state: {key: state[key] for key in state if key != "fc.bias"}, ["fc.bias"]),
        (lambda state: state | {"fc.bias": torch.full((10,), torch.nan)}, ["fc.bias", "NaN"]),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path: Path, change: object, words: list[str]) -> None:
    assert callable(change)
    save_file(change(ep.models.build("resnet20", 10, 3).state_dict()), tmp_path / "w.safetensors")
    done = edgeprune(tmp_path, "shrink", "resnet20", "--weights", "w.safetensors", "-o", "o.onnx")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "o.onnx").exists()
