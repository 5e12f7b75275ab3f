"""How each kind of processor multiplies, tried on this one: however the code is written, the numbers are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.compiling import compile_onnx
from edgeprune.compiling.tvm.tile import Factor
from tests.unit.onnx_nets import Net, narrow_target, reference
from tests.unit.test_compiling_tvm import TOLERANCE, index_addition, run

ELSEWHERE = [Factor.LANE, Factor.SPREAD]


@pytest.fixture(params=ELSEWHERE, ids=lambda factor: factor.value)
def multiplied_otherwise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for this machine, but with the multiply-adds of another."""
    monkeypatch.setattr(Factor, "of", lambda _architecture: request.param)


def check(net: Net, output: str, folder: Path) -> None:
    path, image = net.save(folder / "net.onnx", output), net.image()
    got = run(compile_onnx(path, folder / "out", runtime="tvm", target=narrow_target(folder, 128)), image)
    want = reference(path, image)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


@pytest.mark.usefixtures("multiplied_otherwise")
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 16, 25])
def test_any_number_of_input_channels(channels: int, tmp_path: Path) -> None:
    net = Net((2, channels, 9, 11))
    first = net.add("Relu", net.conv("x", channels, 13, 3, pads=[1, 1, 1, 1]))
    check(net, net.conv(first, 13, 5, 1), tmp_path)


@pytest.mark.usefixtures("multiplied_otherwise")
def test_strides_and_dilation(tmp_path: Path) -> None:
    net = Net((1, 6, 17, 15))
    first = net.conv("x", 6, 9, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    check(net, net.conv(first, 9, 6, 3, dilations=[2, 2], pads=[2, 2, 2, 2]), tmp_path)


@pytest.mark.usefixtures("multiplied_otherwise")
@pytest.mark.parametrize("kernel", [3, 7])
def test_depthwise(kernel: int, tmp_path: Path) -> None:
    net = Net((1, 10, 12, 12))
    weight = net.weight(10, 1, kernel, kernel)
    check(net, net.add("Conv", "x", weight, group=10, pads=[kernel // 2] * 4), tmp_path)


@pytest.mark.usefixtures("multiplied_otherwise")
def test_index_addition(tmp_path: Path) -> None:
    net = Net((1, 3, 12, 12))
    check(net, net.conv(index_addition(net, False), 7, 27, 3), tmp_path)


def test_processors_multiply_in_their_own_way() -> None:
    assert [Factor.of(name) for name in ("aarch64", "armv7l", "x86_64")] == [Factor.LANE, Factor.SPREAD, Factor.MEMORY]
