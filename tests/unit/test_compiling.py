"""Artifacts, names, mistakes and the worker: what the rest of edgeprune sees of compiling."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeprune import compiling
from edgeprune.compiling import Artifact, compile_module, compile_onnx, load_artifact
from edgeprune.compiling.tvm.tile import Reads, choose_tile
from edgeprune.errors import CompileError, StorageError, UnknownNameError, UserError
from tests.unit.onnx_nets import Net, reference

WORKERS = Path(__file__).resolve().parents[2] / "devices" / "workers"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    net = Net((1, 3, 8, 8))
    return net.save(tmp_path / "small.onnx", net.conv("x", 3, 5, 3))


def ask(worker: subprocess.Popen[str], **request: Any) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(json.dumps(request), file=worker.stdin, flush=True)
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


def answer_of_worker(artifact: Artifact, image: np.ndarray, folder: Path) -> np.ndarray:
    """What a network answers in its worker process."""
    image.tofile(folder / "x")
    worker = subprocess.Popen(
        [sys.executable, WORKERS / f"{artifact.runtime}_worker.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        loaded = ask(worker, op="load", model=str(artifact.model), threads=artifact.threads)
        assert loaded["ok"] == "load"
        inputs = [{"path": str(folder / "x"), "shape": image.shape, "dtype": "float32"}]
        assert ask(worker, op="bind", inputs=inputs) == {"ok": "bind"}
        (output,) = ask(worker, op="check", outputs=[str(folder / "y")])["outputs"]
        assert ask(worker, op="quit") == {"ok": "quit"}
    assert worker.returncode == 0
    return np.fromfile(folder / "y", output["dtype"]).reshape(output["shape"])


@pytest.mark.parametrize(("runtime", "threads"), [("onnxruntime", 1), ("tvm", 1), ("tvm", 2)])
def test_worker_answers_as_onnxruntime(runtime: str, threads: int, small: Path, tmp_path: Path) -> None:
    artifact = compile_onnx(small, tmp_path / "out", runtime=runtime, threads=threads)
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answer_of_worker(artifact, image, tmp_path), reference(small, image), atol=1e-5)


def test_torch_runtime_takes_a_module(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU()).eval()
    image = torch.randn(1, 3, 8, 8)
    artifact = compile_module(model, image, tmp_path / "out", runtime="torch")
    assert artifact.weights_bytes == 4 * (5 * 27 + 5)
    answer = answer_of_worker(artifact, image.numpy(), tmp_path)
    np.testing.assert_allclose(answer, model(image).detach().numpy(), atol=1e-6)


def test_artifact_comes_back_equal_also_from_another_place(small: Path, tmp_path: Path) -> None:
    artifact = compile_onnx(small, tmp_path / "out", runtime="tvm")
    assert load_artifact(tmp_path / "out") == artifact
    assert artifact.artifact_bytes == sum(file.stat().st_size for file in artifact.files) > 0
    # 5 filters of 27 weights and a bias are stored as 8
    assert artifact.weights_bytes == 4 * 8 * 28
    assert artifact.arena_bytes is not None
    assert artifact.arena_bytes > 0
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert load_artifact(moved).model == moved / "model.so"


def test_onnxruntime_artifact_is_the_file_itself(small: Path, tmp_path: Path) -> None:
    artifact = compile_onnx(small, tmp_path / "out", runtime="onnxruntime")
    assert artifact.model.read_bytes() == small.read_bytes()
    assert artifact.weights_bytes == 4 * (5 * 27 + 5)


@pytest.mark.parametrize("damage", ["remove", "truncate", "other version", "model gone"])
def test_damaged_artifact(damage: str, small: Path, tmp_path: Path) -> None:
    artifact = compile_onnx(small, tmp_path / "out", runtime="onnxruntime")
    record = tmp_path / "out" / "artifact.json"
    if damage == "remove":
        record.unlink()
    elif damage == "truncate":
        record.write_bytes(record.read_bytes()[:40])
    elif damage == "other version":
        record.write_text(record.read_text().replace('"version": 1', '"version": 99'))
    else:
        artifact.model.unlink()
    with pytest.raises(CompileError) as raised:
        load_artifact(tmp_path / "out")
    assert raised.value.hint == "compile the network again"


def test_names(small: Path, tmp_path: Path) -> None:
    assert compiling.runtimes() == ["fpga", "native", "onnxruntime", "torch", "tvm"]
    assert "host" in compiling.targets()
    assert compiling.takes_module("torch")
    assert not compiling.takes_module("tvm")
    assert "apache-tvm" in compiling.distributions("tvm")
    host = compiling.target("host")
    assert json.loads(json.dumps(host.ingredients())) == host.ingredients()
    assert replace(host, l1_bytes=1).ingredients() == host.ingredients()
    assert replace(host, l2_bytes=1).ingredients() != host.ingredients()
    assert replace(host, vector_bits=64).ingredients() != host.ingredients()
    for name in compiling.__all__:
        assert importlib.util.find_spec(f"edgeprune.compiling.{name}") is None, f"a function and a module: {name}"
    with pytest.raises(UnknownNameError, match="unknown runtime 'tmv'"):
        compile_onnx(small, tmp_path / "out", runtime="tmv")
    with pytest.raises(UnknownNameError, match="unknown target 'hosts'"):
        compile_onnx(small, tmp_path / "out", runtime="tvm", target="hosts")
    with pytest.raises(UserError, match="threads is 0"):
        compile_onnx(small, tmp_path / "out", runtime="tvm", threads=0)
    with pytest.raises(UserError, match="takes a PyTorch module"):
        compile_onnx(small, tmp_path / "out", runtime="torch")
    with pytest.raises(UserError, match="takes an ONNX file"):
        compile_module(torch.nn.ReLU(), torch.zeros(1), tmp_path / "out", runtime="tvm")


def unknown_operator(net: Net) -> tuple[str, dict[str, Any]]:
    return net.add("Det", net.add("Relu", "x")), {}


def half_precision_weights(net: Net) -> tuple[str, dict[str, Any]]:
    return net.add("Mul", "x", net.constant(np.ones(1, np.float16))), {"input_type": onnx.TensorProto.FLOAT16}


def double_input(net: Net) -> tuple[str, dict[str, Any]]:
    return net.add("Relu", "x"), {"input_type": onnx.TensorProto.DOUBLE}


def dynamic_batch(net: Net) -> tuple[str, dict[str, Any]]:
    net.shape = ("N", 3, 8, 8)  # type: ignore[assignment]
    return net.add("Relu", "x"), {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unknown_operator, r"operator Det \(node 'det_1'\)"),
        (half_precision_weights, "weight 'w0' is float16"),
        (double_input, "input 'x' is DOUBLE"),
        (dynamic_batch, "no static shape: ['N', 3, 8, 8]".replace("[", r"\[")),
    ],
)
def test_networks_that_tvm_refuses(
    make: Callable[[Net], tuple[str, dict[str, Any]]], message: str, tmp_path: Path
) -> None:
    net = Net((1, 3, 8, 8))
    output, options = make(net)
    path = net.save(tmp_path / "net.onnx", output, **options)
    with pytest.raises(CompileError, match=message) as raised:
        compile_onnx(path, tmp_path / "out", runtime="tvm")
    assert raised.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "tvm"])
def test_files_that_are_no_networks(runtime: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is not protobuf")
    with pytest.raises(CompileError, match=r"broken.onnx"):
        compile_onnx(broken, tmp_path / "out", runtime=runtime)
    with pytest.raises(CompileError, match="there is no file"):
        compile_onnx(tmp_path / "missing.onnx", tmp_path / "out", runtime=runtime)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "tvm"])
def test_external_weights_that_are_missing(runtime: str, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(str(small)), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CompileError, match=r"external.onnx"):
        compile_onnx(path, tmp_path / "out", runtime=runtime)


def test_no_linker(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompileError, match="no C compiler") as raised:
        compile_onnx(small, tmp_path / "out", runtime="tvm")
    assert "gcc" in (raised.value.hint or "")


def test_place_that_cannot_be_written(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        compile_onnx(small, tmp_path / "file" / "out", runtime="onnxruntime")


def test_failing_again_keeps_what_was_there(small: Path, tmp_path: Path) -> None:
    kept = compile_onnx(small, tmp_path / "out", runtime="onnxruntime")
    small.write_bytes(b"broken")
    with pytest.raises(CompileError):
        compile_onnx(small, tmp_path / "out", runtime="onnxruntime")
    assert load_artifact(tmp_path / "out") == kept
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["artifact.json", "model.onnx"]


def test_package_and_worker_load_no_compiler(small: Path, tmp_path: Path) -> None:
    check = "import sys; heavy = {'torch', 'tvm', 'onnx', 'onnxruntime'} & {k for k, v in sys.modules.items() if v}; "
    code = "import edgeprune.compiling as c; c.target('host'); c.runtimes(); " + check + "assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True)
    model = compile_onnx(small, tmp_path / "out", runtime="tvm").model
    code = (
        f"import sys; sys.path.insert(0, {str(WORKERS)!r}); import numpy, tvm_worker; "
        f"held = tvm_worker.load({str(model)!r}, 1); held.bind([numpy.zeros((1, 3, 8, 8), 'float32')]); held.call(); "
        "held.outputs(); " + check + "assert not heavy, heavy; "
        "assert not [name for name in sys.modules if name.startswith('edgeprune')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_of_the_tvm_worker_stay_on_the_cores_it_was_given(small: Path, tmp_path: Path) -> None:
    model = compile_onnx(small, tmp_path / "out", runtime="tvm", threads=2).model
    given = {max(os.sched_getaffinity(0))}
    code = (
        f"import os, sys; sys.path.insert(0, {str(WORKERS)!r}); os.sched_setaffinity(0, {given}); "
        "import numpy, tvm_worker; before = set(os.listdir('/proc/self/task')); "
        f"held = tvm_worker.load({str(model)!r}, 2); held.bind([numpy.zeros((1, 3, 8, 8), 'float32')]); held.call(); "
        "tasks = set(os.listdir('/proc/self/task')); assert tasks > before; "
        "print([sorted(os.sched_getaffinity(int(task))) for task in tasks])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(set(cores) == given for cores in json.loads(done.stdout)), done.stdout


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("vectors", [1, 2, 3, 5, 7, 13])
def test_tiles_fit_the_registers(vectors: int, registers: int) -> None:
    for height, width in [(1, 1), (7, 7), (8, 8), (13, 29), (56, 56)]:
        tile = choose_tile(height, width, vectors, registers)
        assert vectors % tile.vectors == 0
        assert tile.rows * tile.cols * tile.vectors + tile.vectors + 1 < registers


@pytest.mark.parametrize("vectors", [1, 11, 23, 47, 89])  # no number divides them, so a tile may have many pixels
@pytest.mark.parametrize("lanes", [4, 16])
def test_pixels_of_a_tile_stay_in_the_first_level_cache(vectors: int, lanes: int) -> None:
    for size, pixel in [(7, 8192), (14, 4096), (28, 2048), (56, 1024), (14, 4096 - 64)]:
        reads = Reads(size * pixel, pixel, weight_bytes=pixel * lanes, lanes=lanes)
        tile = choose_tile(size, size, vectors, 32, reads)
        starts = [row * size * pixel + col * pixel for row in range(tile.rows) for col in range(tile.cols)]
        # an address modulo 4 KB is the set of a cache of 32 KB with 8 ways
        assert max(Counter(start % 4096 // 64 for start in starts).values()) <= 8
