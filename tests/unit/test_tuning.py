"""Tuning: what is found is kept, shared, used where it is faster, and computes the same."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

import edgeprune as ep
from edgeprune.cli import main
from edgeprune.compiling import compile_onnx, target
from edgeprune.compiling.tvm import rpc
from edgeprune.compiling.tvm.build import Fused, fuse
from edgeprune.compiling.tvm.form import Form, forms
from edgeprune.compiling.tvm.schedule import schedule_kernel
from edgeprune.compiling.tvm.tile import Factor
from edgeprune.compiling.tvm.tuned import Found, Tuned, key
from edgeprune.compiling.tvm.tuning import tune
from edgeprune.errors import DeviceError, UserError
from tests.unit.onnx_nets import Net, reference

HERE = target("host")
TRIALS = 3


def save(folder: Path, seed: int = 0, channels: int = 12, **attributes: Any) -> Net:
    """One 5x5 convolution to a ragged number of channels, with something behind it."""
    net = Net((1, channels, 12, 16), seed=seed)
    net.save(folder / "net.onnx", net.add("Relu", net.conv("x", channels, 36, 5, pads=[2, 2, 2, 2], **attributes)))
    return net


def run(library: Path, image: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(image)).numpy())


def run_program(program: Path, image: np.ndarray) -> np.ndarray:
    """What a static program computes."""
    given, gave = program.parent / "in.bin", program.parent / "out.bin"
    image.tofile(given)
    subprocess.run([program, "check", "--input", given, "--output", gave], check=True, capture_output=True)
    return np.fromfile(gave, np.float32)


def convolution(fused: Fused) -> tuple[str, tirx.PrimFunc]:
    """The only kernel with something to tune."""
    kernels = [
        (str(name.name_hint), kernel)
        for name, kernel in fused.module.functions_items()
        if isinstance(kernel, tirx.PrimFunc) and forms(kernel, fused.factor, HERE.vector_registers)
    ]
    (found,) = kernels
    return found


def kept(folder: Path, network: Path, form: Form, tuned_ns: float = 1, untuned_ns: float = 2) -> Tuned:
    """A database that says what the fastest form of a network's convolution is."""
    name, kernel = convolution(fuse(network, HERE, 1))
    record = Found(name, form, tuned_ns, untuned_ns, TRIALS)
    tuned = Tuned(Tuned.load(folder, HERE, 1).path, {key(kernel): record})
    tuned.save()
    return tuned


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and a database, made through a server that listens as a device's would."""
    folder = tmp_path_factory.mktemp("tuning")
    save(folder)
    told: list[Found] = []
    with rpc.serve() as (host, port):
        tune(folder / "net.onnx", HERE, 1, folder / "db", device=f"{host}:{port}", trials=TRIALS, told=told.append)
    assert [record.trials for record in told] == [TRIALS]
    return folder


def test_latencies_are_measured(tried: Path) -> None:
    (record,) = Tuned.load(tried / "db", HERE, 1).found.values()
    _, kernel = convolution(fuse(tried / "net.onnx", HERE, 1))
    assert record.form in forms(kernel, Factor.MEMORY, HERE.vector_registers)[:TRIALS]
    assert record.tuned_ns > 0
    assert record.untuned_ns > 0


def test_known_kernels_are_not_tried_again(tried: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = next((tried / "db").iterdir()).read_bytes()
    words = ["--database", str(tried / "db"), "--trials", str(TRIALS)]
    assert main(["tune", str(tried / "net.onnx"), *words]) == 0
    assert next((tried / "db").iterdir()).read_bytes() == before
    out = capsys.readouterr().out
    assert "1 kernels known" in out
    assert " us " not in out


@pytest.mark.parametrize("factor", [Factor.MEMORY, Factor.LANE])
@pytest.mark.parametrize(
    "attributes", [{}, {"strides": [2, 2]}, {"channels": 36, "group": 36}], ids=["plain", "strided", "depthwise"]
)
def test_every_form_computes_the_same(attributes: dict[str, Any], factor: Factor, tmp_path: Path) -> None:
    save(tmp_path, **attributes)
    fused = fuse(tmp_path / "net.onnx", HERE, 1, factor)
    _, kernel = convolution(fused)
    untuned, *others = forms(kernel, factor, HERE.vector_registers)
    tried = [untuned, *others[:: len(others) // 8]]
    assert len(tried) > 8
    kernels = {}
    for number, form in enumerate(tried):
        made = schedule_kernel(kernel, fused.lanes, factor, parallel=False, form=form)
        kernels[f"form{number}"] = made.with_attr("global_symbol", f"form{number}")
    library = tvm.tirx.build(tvm.IRModule(kernels), fused.target)
    random = np.random.default_rng(0)
    shapes = [[int(extent) for extent in parameter.shape] for parameter in kernel.params]
    arguments = [tvm.runtime.tensor(random.standard_normal(shape, np.float32)) for shape in shapes]
    outputs = []
    for name in kernels:
        arguments[-1].copyfrom(np.full(shapes[-1], np.nan, np.float32))
        library[name](*arguments)
        outputs.append(arguments[-1].numpy())
    assert np.abs(outputs[0]).max() > 1
    for output in outputs[1:]:
        assert np.abs(output - outputs[0]).max() <= 2e-6 * np.abs(outputs[0]).max()


@pytest.mark.parametrize("runtime", ["tvm", "native"])
def test_a_tuned_network_equals_onnxruntime(runtime: str, tmp_path: Path) -> None:
    image = save(tmp_path).image()
    want = reference(tmp_path / "net.onnx", image)
    name, kernel = convolution(fuse(tmp_path / "net.onnx", HERE, 1))
    kept(tmp_path / "db", tmp_path / "net.onnx", forms(kernel, Factor.MEMORY, HERE.vector_registers)[-1])
    artifact = ep.compile(tmp_path / "net.onnx", out=tmp_path / "out", runtime=runtime, tuned=tmp_path / "db")
    assert artifact.notes[0].endswith(f": {name}")
    got = {"tvm": run, "native": run_program}[runtime](artifact.model, image)
    assert np.abs(got.reshape(want.shape) - want).max() <= 2e-6 * np.abs(want).max()


def test_slower_forms_are_not_used(tried: Path, tmp_path: Path) -> None:
    _, kernel = convolution(fuse(tried / "net.onnx", HERE, 1))
    untuned, other, *_ = forms(kernel, Factor.MEMORY, HERE.vector_registers)
    assert untuned != other
    tuned = kept(tmp_path, tried / "net.onnx", other, tuned_ns=2, untuned_ns=1)
    assert tuned.faster(fuse(tried / "net.onnx", HERE, 1).module) == {}
    artifact = compile_onnx(tried / "net.onnx", tmp_path / "out", runtime="tvm", tuned=tmp_path)
    assert "none of its kernels" in artifact.notes[0]


def test_forms_where_multiply_adds_are_written_out(tried: Path) -> None:
    """Loops written out for ARM's instructions are made for one order and for the weights as they are packed."""
    _, kernel = convolution(fuse(tried / "net.onnx", HERE, 1))
    here, there = (forms(kernel, factor, 32) for factor in (Factor.MEMORY, Factor.LANE))
    assert len({form.rows_outside for form in here}) == 2
    assert len({form.vectors for form in here}) > 1
    assert {(form.vectors, form.rows_outside, form.columns_unrolled) for form in there} == {
        (there[0].vectors, False, False)
    }
    assert len(there) > 3


def test_winograds_way_is_left_as_it_is(tmp_path: Path) -> None:
    net = Net((1, 64, 28, 28))
    net.save(tmp_path / "net.onnx", net.conv("x", 64, 64, 3, pads=[1, 1, 1, 1]))
    fused = fuse(tmp_path / "net.onnx", HERE, 1)
    kernels = [kernel for _, kernel in fused.module.functions_items() if isinstance(kernel, tirx.PrimFunc)]
    assert any("winograd" in kernel.script() for kernel in kernels)
    assert not any(forms(kernel, fused.factor, HERE.vector_registers) for kernel in kernels)


def test_networks_share_kernels(tmp_path: Path) -> None:
    keys = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        save(tmp_path / str(seed), seed)
        keys.append(key(convolution(fuse(tmp_path / str(seed) / "net.onnx", HERE, 1))[1]))
    assert keys[0] == keys[1]


def test_kinds_of_processors_are_kept_apart(tmp_path: Path) -> None:
    kinds = [(HERE, 1), (HERE, 2), (target("rpi4"), 1), (target("rpi3b"), 1)]
    assert len({Tuned.load(tmp_path, where, threads).path for where, threads in kinds}) == len(kinds)


def test_nothing_tuned_for_the_target(tried: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds nothing for target rpi4"):
        compile_onnx(tried / "net.onnx", tmp_path / "out", runtime="native", target="rpi4", tuned=tried / "db")
    with pytest.raises(UserError, match="nothing to tune"):
        compile_onnx(tried / "net.onnx", tmp_path / "out", runtime="onnxruntime", tuned=tried / "db")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 99, "kernels": {}}', '{"version": 1, "kernels": {"a": {}}}']
)
def test_damaged_database(content: str, tmp_path: Path) -> None:
    path = Tuned.load(tmp_path, HERE, 1).path
    path.write_text(content)
    with pytest.raises(UserError, match=r"cannot be read|another version"):
        Tuned.load(tmp_path, HERE, 1)


def test_form_that_does_not_fit(tried: Path, tmp_path: Path) -> None:
    tuned = kept(tmp_path, tried / "net.onnx", Form(5, 16, 1))
    with pytest.raises(UserError, match="does not fit"):
        compile_onnx(tried / "net.onnx", tmp_path / "out", runtime="tvm", tuned=tuned.path.parent)
    assert not (tmp_path / "out").exists()


def test_no_server_and_no_way_out(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(DeviceError, match="no TVM RPC server"):
        tune(tmp_path / "net.onnx", HERE, 1, tmp_path / "db", device="127.0.0.1:9", trials=TRIALS)
    with pytest.raises(UserError, match="not on this machine"):
        tune(tmp_path / "net.onnx", HERE, 1, tmp_path / "db", device="192.168.0.7:9090", trials=TRIALS)


@pytest.mark.parametrize("words", [["--target", "rpi4"], ["--trials", "0"], ["--threads", "0"]])
def test_requests_that_cannot_be_carried_out(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path)
    assert main(["tune", str(tmp_path / "net.onnx"), "--database", str(tmp_path / "db"), *words]) == 2
    assert not (tmp_path / "db").exists()
    assert "edgeprune:" in capsys.readouterr().err


def test_threads(tmp_path: Path) -> None:
    """With several threads, outer loops of the forms are shared between them."""
    save(tmp_path)
    tuned = tune(tmp_path / "net.onnx", HERE, 2, tmp_path / "db", trials=2)
    assert [record.trials for record in tuned.found.values()] == [2]
    assert json.loads(tuned.path.read_text())["kernels"].keys() == tuned.found.keys()
    (number, record), *_ = tuned.found.items()
    assert Tuned(tuned.path, {number: replace(record, trials=9)}).told(["a"]) != tuned.told(["a"])
