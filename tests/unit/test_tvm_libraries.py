"""Libraries for boards with Python: linked here for another machine, and run through TVM's RPC on the loopback."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from edgeprune.compiling import compile_onnx
from edgeprune.compiling import target as find_target
from edgeprune.compiling.tvm import rpc
from edgeprune.errors import CompileError, DeviceError, UserError
from tests.unit.onnx_nets import Net, reference

AARCH64, ARM = 183, 40
LISTENING = "0A"


@pytest.fixture
def small(tmp_path: Path) -> Net:
    net = Net((1, 3, 9, 11), seed=0)
    x = net.add("Relu", net.conv("x", 3, 13, 3, pads=[1, 1, 1, 1]))
    net.save(tmp_path / "net.onnx", net.conv(x, 13, 7, 1))
    return net


def machine(library: bytes) -> int:
    """The processor that an ELF file says it is for."""
    assert library[:4] == b"\x7fELF"
    return int(struct.unpack_from("<H", library, 18)[0])


def kernels(library: bytes) -> set[bytes]:
    """The names in a library that TVM's runtime looks for."""
    return {name for name in library.split(b"\0") if name.startswith(b"__tvm_ffi_")}


@pytest.mark.parametrize(("target", "processor"), [("rpi4", AARCH64), ("rpi2", ARM)])
def test_library_for_another_machine(target: str, processor: int, small: Net, tmp_path: Path) -> None:
    theirs = compile_onnx(tmp_path / "net.onnx", tmp_path / target, runtime="tvm", target=target).model.read_bytes()
    assert machine(theirs) == processor
    ours = compile_onnx(tmp_path / "net.onnx", tmp_path / "host", runtime="tvm").model.read_bytes()
    assert len(kernels(ours)) > 3
    assert kernels(theirs) == kernels(ours)


def test_no_library_for_another_c_library(small: Net, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only for Linux with glibc") as raised:
        compile_onnx(tmp_path / "net.onnx", tmp_path / "out", runtime="tvm", target="android-arm64")
    assert "native" in (raised.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_no_cross_compiler(small: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CC", "no-such-compiler")
    with pytest.raises(CompileError, match="no-such-compiler"):
        compile_onnx(tmp_path / "net.onnx", tmp_path / "out", runtime="tvm", target="rpi4")


def test_triples() -> None:
    assert find_target("rpi4").shared_triple == "aarch64-linux-gnu.2.17"
    assert find_target("rpi2").shared_triple == "arm-linux-gnueabihf.2.17"


def test_rpc_over_the_loopback_equals_onnxruntime(small: Net, tmp_path: Path) -> None:
    library = compile_onnx(tmp_path / "net.onnx", tmp_path / "out", runtime="tvm").model
    image = small.image()
    with rpc.serve() as (host, port):
        assert listeners(port) == {"0100007F"}  # 127.0.0.1 as /proc/net/tcp writes it
        session = rpc.connect(host, port)
        network = relax.VirtualMachine(rpc.load(session, library, library.name), session.cpu())
        network.set_input("main", tvm.runtime.tensor(image, session.cpu()))
        network.invoke_stateful("main")
        got = np.asarray(network.get_outputs("main").numpy())
    want = reference(tmp_path / "net.onnx", image)
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()
    with pytest.raises(DeviceError, match="no TVM RPC server"):
        rpc.connect(host, port)


def listeners(port: int) -> set[str]:
    """The addresses on which anything of this machine listens at a port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _table(name)]
    return {words[1].split(":")[0] for words in lines if words[3] == LISTENING and words[1].endswith(f":{port:04X}")}


def _table(name: str) -> list[str]:
    path = Path("/proc/net") / name
    return path.read_text().splitlines()[1:] if os.path.exists(path) else []


@pytest.mark.parametrize(
    "address", ["192.168.0.7:9090", "0.0.0.0:9090", "raspberrypi:9090", "127.0.0.1", "127.0.0.1:0"]
)
def test_nothing_but_the_loopback(address: str) -> None:
    with pytest.raises(UserError):
        rpc.loopback(address)
