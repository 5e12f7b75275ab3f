"""`edgeprune compile` with what it cannot compile: one message with a way out, a status, and nothing half-written."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune import compiling
from edgeprune.cli import main
from tests.unit.onnx_nets import Net, reference

FLOAT, HALF, DOUBLE, INT8, INT64 = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT64,
)  # fmt: skip
SHAPE = (1, 3, 8, 8)
node, array = helper.make_node, numpy_helper.from_array


class Told(NamedTuple):
    """What the command left on the screen."""

    status: int
    text: str


Command = Callable[..., Told]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`edgeprune compile` into a folder that must not be there afterwards."""
    before = signal.getsignal(signal.SIGTERM)

    def run(model: Path, *words: str) -> Told:
        status = main(["compile", str(model), "-o", str(tmp_path / "out"), "--threads", "1", *words])
        assert not (tmp_path / "out").exists()
        captured = capfd.readouterr()
        assert captured.out == ""
        return Told(status, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def weight(kind: Any) -> onnx.TensorProto:
    return array(np.ones((4, 3, 3, 3), kind), "w")


def foreign(
    folder: Path,
    nodes: list[onnx.NodeProto],
    weights: tuple[onnx.TensorProto, ...] = (),
    kinds: tuple[int, int] = (FLOAT, FLOAT),
    shape: tuple[Any, ...] = SHAPE,
    rank: int = 4,
) -> Path:
    """A file as other exporters write it: an older opset, no shapes of what is inside."""
    given = [helper.make_tensor_value_info("x", kinds[0], shape)]
    result = [helper.make_tensor_value_info("y", kinds[1], [None] * rank)]
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "net", given, result, weights), opset_imports=domains, ir_version=8
    )
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def plain(folder: Path) -> Path:
    return foreign(folder, [node("Relu", ["x"], ["y"])])


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unknown operator": (
        lambda folder: foreign(folder, [node("Det", ["x"], ["y"], name="volume")], rank=2),
        "operator Det (node 'volume')",
    ),
    "operator of another domain": (
        lambda folder: foreign(folder, [node("Fancy", ["x"], ["y"], name="fancy_0", domain="com.acme")]),
        "operator Fancy (node 'fancy_0')",
    ),
    "operator without a name": (
        lambda folder: foreign(folder, [node("Relu", ["x"], ["a"]), node("Det", ["a"], ["y"])], rank=2),
        "operator Det (node '#1')",
    ),
    "dynamic batch": (
        lambda folder: foreign(folder, [node("Relu", ["x"], ["y"])], shape=("N", 3, 8, 8)),
        "input 'x' has no static shape: ['N', 3, 8, 8]",
    ),
    "dynamic size without a name": (
        lambda folder: foreign(folder, [node("Relu", ["x"], ["y"])], shape=(1, 3, None, None)),
        "input 'x' has no static shape: [1, 3, '?', '?']",
    ),
    "shape that depends on numbers": (
        lambda folder: foreign(folder, [node("NonZero", ["x"], ["y"], name="found")], kinds=(FLOAT, INT64), rank=2),
        "the shape of what the NonZero node 'found' gives is not known",
    ),
    "half network": (
        lambda folder: foreign(folder, [node("Conv", ["x", "w"], ["y"])], (weight(np.float16),), (HALF, HALF)),
        "weight 'w' is float16",
    ),
    "half weights": (
        lambda folder: foreign(
            folder, [node("Cast", ["w"], ["f"], to=FLOAT), node("Conv", ["x", "f"], ["y"])], (weight(np.float16),)
        ),
        "weight 'w' is float16",
    ),
    "half inside": (
        lambda folder: foreign(
            folder, [node("Cast", ["x"], ["h"], name="down", to=HALF), node("Cast", ["h"], ["y"], to=FLOAT)]
        ),
        "the Cast node 'down' gives FLOAT16",
    ),
    "double network": (
        lambda folder: foreign(folder, [node("Conv", ["x", "w"], ["y"])], (weight(np.float64),), (DOUBLE, DOUBLE)),
        "weight 'w' is float64",
    ),
    "int8 input": (
        lambda folder: foreign(folder, [node("Cast", ["x"], ["y"], to=FLOAT)], kinds=(INT8, FLOAT)),
        "input 'x' is INT8",
    ),
    "int8 arithmetic": (
        lambda folder: foreign(
            folder,
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("ConvInteger", ["q", "w"], ["r"], name="whole"),
                node("Cast", ["r"], ["y"], to=FLOAT),
            ],
            (array(np.float32(0.1), "s"), array(np.int8(0), "z"), weight(np.int8)),
        ),
        "operator ConvInteger (node 'whole')",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("emit", ["program", "c"])
def test_a_network_that_is_not_compiled_is_told(case: str, emit: str, tmp_path: Path, command: Command) -> None:
    make, message = REFUSED[case]
    told = command(make(tmp_path), "--emit", emit)
    assert told.status == 1
    assert message in told.text
    assert "export " in told.text or "use the runtime onnxruntime" in told.text
    assert "Traceback" not in told.text
    assert "defect" not in told.text


def test_weights_held_in_int8_are_compiled(tmp_path: Path) -> None:
    """A quantised file whose arithmetic is float32 needs no refusal; its numbers must be right."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        node("Conv", ["f", "wf"], ["y"]),
    ]
    weights = array(np.random.default_rng(0).integers(-99, 99, (4, 3, 3, 3)).astype(np.int8), "w")
    path = foreign(tmp_path, nodes, (array(np.float32(0.1), "s"), array(np.int8(0), "z"), weights))
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native")
    image = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    image.tofile(tmp_path / "in.bin")
    words = ["check", "--input", str(tmp_path / "in.bin"), "--output", str(tmp_path / "out.bin")]
    subprocess.run([str(artifact.model), *words], check=True, capture_output=True)
    want, got = reference(path, image).ravel(), np.fromfile(tmp_path / "out.bin", np.float32)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def large(folder: Path, size: int) -> Path:
    """A network whose weights lie in another file, which takes no room however long it is."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[size // 4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(size)
    return foreign(folder, [node("Relu", ["x"], ["y"])], (tensor,))


def test_more_than_two_gigabytes(tmp_path: Path, command: Command) -> None:
    told = command(large(tmp_path, 5_000_000_000))
    assert told.status == 1
    assert "the network has 5.0 GB, at most 2.1 GB are compiled" in told.text
    assert "use the runtime onnxruntime" in told.text


def test_external_weights_that_are_missing(tmp_path: Path, command: Command) -> None:
    path = large(tmp_path, 1000)
    (tmp_path / "weights.bin").unlink()
    told = command(path)
    assert told.status == 1
    assert "a file of the network is missing: weights.bin" in told.text
    assert "together with its external weights" in told.text


def test_unknown_target(tmp_path: Path, command: Command) -> None:
    told = command(plain(tmp_path), "--target", "rpi44")
    assert told.status == 2
    assert "unknown target 'rpi44'" in told.text
    assert "did you mean rpi4?" in told.text


def test_no_linker(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_CC", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else found(name))
    told = command(plain(tmp_path), "--target", "rpi4")
    assert told.status == 1
    assert "no compiler for aarch64-linux-musl is installed" in told.text
    assert "pip install ziglang" in told.text
    monkeypatch.setenv("EDGEPRUNE_CC", "zig 'cc")
    told = command(plain(tmp_path), "--target", "rpi4")
    assert told.status == 1
    assert "$EDGEPRUNE_CC is no command line: No closing quotation" in told.text


@pytest.mark.parametrize("emit", ["program", "c"])
def test_a_limit_of_the_kernel_stands_in_for_a_full_disk(emit: str, tmp_path: Path) -> None:
    net = Net((1, 3, 8, 8))
    path = net.save(tmp_path / "net.onnx", net.add("MatMul", net.add("Flatten", "x"), net.weight(192, 1000)))
    script = f"""
import resource, sys
from edgeprune.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.exit(main(["compile", {str(path)!r}, "-o", {str(tmp_path / "out")!r}, "--emit", {emit!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot write the compiled network" in done.stderr
    assert "free space or choose another folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_when_machine_code_is_written(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "kernels.o":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    told = command(plain(tmp_path))
    assert told.status == 1
    assert "No space left on device" in told.text
    assert "free space or choose another folder" in told.text


def test_a_full_disk_when_the_program_is_linked(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_CC", "false")
    told = command(path)
    assert "false could not link the program" in told.text
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    told = command(path)
    assert told.status == 1
    assert "No space left on device" in told.text
