"""Runtimes that live in Python, on a board that has Python alone: the numbers of this machine, from aarch64 code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import edgeprune as ep
from edgeprune import exporting, profiles
from edgeprune.compiling import compile_onnx
from edgeprune.errors import RemoteError
from edgeprune.exporting import PARITY_TOLERANCE
from edgeprune.transport import RemoteTransport, Worker
from edgeprune.transport.ssh import SshLink
from edgeprune.transport.wheels import BoardPython
from tests.standins import Reached


@pytest.fixture
def board(virtual_pi: Reached) -> Iterator[RemoteTransport]:
    """The emulated Raspberry Pi, as any board behind ssh."""
    link = SshLink(
        "board",
        virtual_pi.host,
        virtual_pi.user,
        virtual_pi.port,
        Path(virtual_pi.identity),
        Path(virtual_pi.known_hosts),
        ("-F", "none"),
    )
    with contextlib.closing(RemoteTransport(link)) as way:
        assert way.acquire(60.0)
        yield way


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small residual network with random weights."""
    path = tmp_path_factory.mktemp("network") / "resnet20.onnx"
    ep.export_onnx(ep.models.build("resnet20", 10, 3, seed=1).eval(), torch.zeros(1, 3, 32, 32), path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "tvm"])
def test_a_worker_on_the_board_has_the_numbers_of_this_machine(
    board: RemoteTransport, network: Path, runtime: str, tmp_path: Path
) -> None:
    example = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(network))
    reference = session.run(None, {session.get_inputs()[0].name: example})[0]
    example.tofile(tmp_path / "input.bin")

    target = profiles.recognise(board.facts())
    assert target == "linux-arm64"
    artifact = compile_onnx(network, tmp_path / "compiled", runtime=runtime, target=target)
    others = [file for file in artifact.files if file != artifact.model]
    model = board.push([artifact.model, *others])[0]
    (input_path,) = board.push([tmp_path / "input.bin"])
    with Worker.start(board, runtime, None) as worker:
        worker.load(model, 1)
        assert worker.versions
        worker.bind([(input_path, example)])
        (output,) = worker.check(1)
    assert exporting.parity(reference, output) <= PARITY_TOLERANCE


def test_clean_leaves_nothing(board: RemoteTransport, virtual_pi: Reached, tmp_path: Path) -> None:
    """The worker before ran there: neither its files nor those of the packages' makers are left."""
    (tmp_path / "file").write_text("x")
    board.push([tmp_path / "file"])
    ours = "find \"$HOME\" -iname '*edgeprune*' -o -iname '*onnx*'"
    assert virtual_pi.run(ours).stdout != b""
    board.clean()
    left = virtual_pi.run(ours)
    assert (left.returncode, left.stdout) == (0, b"")


def test_a_board_without_python_is_told(board: RemoteTransport) -> None:
    with pytest.raises(RemoteError, match="not found on the device") as caught:
        BoardPython(board, "python4").command("onnxruntime")
    assert "apt-get install python3" in str(caught.value.hint)
