"""Static programs of large networks, dense and shrunk to ragged widths, under emulation: the numbers of ONNX Runtime.

Images are small, for the emulator's sake; every kernel of a network is still compiled and run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune as ep
from edgeprune import compiling, emulation
from tests.unit.native.emulators import emulator
from tests.unit.onnx_nets import reference
from tests.unit.outside_masks import mask, randomise
from tests.unit.outside_networks import NETWORKS, build

TOLERANCE = 1e-4
CASES = [
    ("resnet50", "dense", "rpi4"),
    ("resnet50", "shrunk", "rpi2"),
    ("densenet121", "shrunk", "rpi4"),
    ("mobilenet_v2", "dense", "rpi2"),
    ("mobilenet_v2", "shrunk", "rpi4"),
    ("hrnet_w18", "shrunk", "rpi4"),
    ("vgg16", "dense", "rpi4"),
    ("vgg16", "shrunk", "rpi2"),
]


def network(name: str, form: str, image: torch.Tensor) -> nn.Module:
    """The dense network, or what is left of it when half of its filters are cut at random."""
    model = build(name)
    if name == "vgg16":  # its head wants 7 x 7 pixels, and enlarges smaller images by an operator that is not compiled
        model = nn.Sequential(*model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).eval()
    if form == "shrunk":
        return ep.shrink(mask(model, image, "B50"), image).model
    randomise(model, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("name", "form", "target"), CASES)
def test_networks_under_emulation(name: str, form: str, target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, *NETWORKS[name].size)
    path = tmp_path / "net.onnx"
    ep.export_onnx(network(name, form, image), image, path)
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native", target=target)
    image.numpy().tofile(tmp_path / "in.bin")
    words = ["check", "--input", str(tmp_path / "in.bin"), "--output", str(tmp_path / "out.bin")]
    emulation.run_program(artifact.model, emulator(target), words)
    want, got = reference(path, image.numpy()).ravel(), np.fromfile(tmp_path / "out.bin", np.float32)
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
