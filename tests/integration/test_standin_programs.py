"""Static programs on the stand-ins: the numbers of ONNX Runtime, and, where memory is true, little beyond the plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeprune as ep
from edgeprune import compiling
from edgeprune.compiling import Artifact
from tests.standins import Reached
from tests.unit.onnx_nets import reference

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    ep.export_onnx(ep.models.build("resnet20", num_classes=10).eval(), torch.randn(1, 3, 32, 32), path)
    return path


@pytest.fixture(scope="module")
def program(network: Path) -> Artifact:
    return compiling.compile_onnx(network, network.parent / "out", runtime="native", target="rpi4")


@pytest.fixture(params=["virtual_pi", "virtual_vm"])
def board(request: pytest.FixtureRequest) -> Reached:
    """Each of the stand-ins in turn."""
    reached: Reached = request.getfixturevalue(request.param)
    return reached


def put(board: Reached, program: Artifact) -> None:
    done = board.run("cat >program && chmod +x program", stdin=program.model.read_bytes())
    assert done.returncode == 0, done.stderr


def test_a_static_program_has_the_numbers_of_onnx_runtime(board: Reached, network: Path, program: Artifact) -> None:
    put(board, program)
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    orders = "cat >in.bin && ./program check --input in.bin --output out.bin >&2 && cat out.bin"
    done = board.run(orders, stdin=image.tobytes())
    assert done.returncode == 0, done.stderr
    answer, want = np.frombuffer(done.stdout, np.float32), reference(network, image).ravel()
    assert np.abs(answer - want).max() <= TOLERANCE * np.abs(want).max()


def test_memory_beyond_what_was_planned_is_small(virtual_vm: Reached, program: Artifact) -> None:
    put(virtual_vm, program)
    lines = virtual_vm.run("./program facts && ./program measure --samples 10 --seconds 0").stdout.splitlines()
    facts, end = json.loads(lines[0]), json.loads(lines[-1])
    planned = facts["weights_bytes"] + facts["arena_bytes"] + facts["workspace_bytes"]
    assert end["workspace_peak_bytes"] > 0, "nothing ran"
    assert end["peak_rss_bytes"] - planned <= 512 * 1024


def test_memory_is_told_as_the_pages_tell_it(virtual_vm: Reached, program: Artifact) -> None:
    """Its kernel's own counter lags by megabytes where few page faults bring in many pages, as with weights."""
    put(virtual_vm, program)
    orders = """(echo '{"op":"memory","calls":1}'; sleep 20) | ./program serve >told & sleep 1
    until grep -q peak told; do sleep 1; done
    cat told /proc/$(pgrep -x program)/smaps_rollup; pkill -x program"""
    lines = virtual_vm.run(orders).stdout.splitlines()
    (resident,) = [1024 * int(line.split()[1]) for line in lines if line.startswith(b"Rss:")]
    assert resident > program.weights_bytes
    assert json.loads(lines[0])["peak_rss_bytes"] >= 0.99 * resident
