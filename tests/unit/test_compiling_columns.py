"""Networks with gathered kernel columns and smaller kernels give the masked network's numbers in every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.compiling import compile_onnx
from edgeprune.exporting import export_onnx
from edgeprune.shrinking import Shrunk, shrink
from tests.unit.native.test_native_programs import answer
from tests.unit.onnx_nets import Net, reference
from tests.unit.test_compiling_tvm import check, run

TOLERANCE = 2e-6


class Streams(nn.Module):
    """Convolutions of strides, paddings and dilations, with batch-norms, beside a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(12, 20, 3, 2, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 12, 5, 1, 4, 2)
        )
        self.wide = nn.Conv2d(12, 12, (3, 4), 2, (1, 1))
        self.each = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.deep(x) + self.wide(x))
        return self.head(self.each(x).mean((2, 3)))


def shrunk_streams(columns: str) -> tuple[nn.Module, Shrunk, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masked, images = Streams().eval(), torch.randn(2, 3, 11, 14)
        quarter = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        for layer in (masked.deep[0], masked.deep[3]):
            layer.weight.data *= torch.rand(layer.weight[:1].shape) < 0.4
        masked.wide.weight.data[:, :, 0] = 0.0
        masked.wide.weight.data[..., 3] = 0.0
        masked.each.weight.data *= quarter
    return masked, shrink(masked, images, columns=columns), images


@pytest.mark.parametrize("columns", ["auto", "gather"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "tvm", "native"])
def test_runtimes_give_the_masked_networks_numbers(runtime: str, columns: str, tmp_path: Path) -> None:
    masked, result, images = shrunk_streams(columns)
    path = export_onnx(result.model, images, tmp_path / "net.onnx")
    with torch.no_grad():
        want = masked(images).numpy()
    if runtime == "tvm":
        got = run(compile_onnx(path, tmp_path / "out", runtime="tvm"), images.numpy())
    elif runtime == "native":
        artifact = compile_onnx(path, tmp_path / "out", runtime="native")
        got = answer(artifact, images.numpy(), "host").reshape(want.shape)
    else:
        got = reference(path, images.numpy())
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize("seed", range(6))
def test_images_padded_cut_and_shifted(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    net = Net((2, 3, 9, 8), seed)
    x = net.conv("x", 3, 13, 1)
    top, left, bottom, right = (int(one) for one in random.integers(-2, 4, 4))
    if seed % 2:
        moved = net.add("Pad", x, net.constant(np.array([0, 0, top, left, 0, 0, bottom, right])))
    else:
        sides = net.constant(np.array([left, top, right, bottom]))
        moved = net.add("Pad", x, sides, net.constant(np.float32(0)), net.constant(np.array([3, -2])))
    check(net, net.conv(net.add("Relu", moved), 13, 5, 1), tmp_path)


def test_pads_of_other_numbers_and_axes_are_left_to_tvm(tmp_path: Path) -> None:
    net = Net((2, 3, 9, 8))
    x = net.conv("x", 3, 13, 1)
    sides = net.constant(np.array([0, 0, 1, 1, 0, 0, 0, 2]))
    x = net.add("Pad", x, sides, net.constant(np.float32(0.5)))
    check(net, net.add("Relu", net.add("Pad", x, sides, mode="reflect")), tmp_path)
