"""The papers' networks, half of their filters masked at random: shrunk exactly, exported, compiled, equal when run.

Small images; what each network is held to elsewhere does not depend on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgeprune as ep
from edgeprune import compiling, emulation, models
from tests.unit.native.emulators import emulator
from tests.unit.outside_masks import mask

EXACT = 1e-5
TOLERANCE = 1e-4
SIZES = {"lenet5": (28, 28), "lenet300": (28, 28), "hrnet48": (32, 32), "resnet110": (16, 16), "segnet": (32, 64)}
OPTIONS = {"vgg16_imagenet": {"image_size": 32}, "mobilenetv2": {"width": 1.4}}
COMPILED = ["lenet300", "alexnet", "segnet"]


def shrunk(name: str) -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]:
    """Masked and shrunk network, and an image."""
    torch.manual_seed(0)
    image = torch.randn(1, models.entry(name).input_shape[0], *SIZES.get(name, (32, 32)))
    masked = mask(models.build(name, 10, **OPTIONS.get(name, {})).eval(), image, "B50")
    return masked, ep.shrink(masked, image).model, image


@pytest.mark.parametrize("name", [name for name in models.names() if name not in COMPILED])
def test_a_network_shrinks_exactly(name: str) -> None:
    masked, smaller, image = shrunk(name)
    with torch.inference_mode():
        want, got = masked(image), smaller(image)
    assert float((got - want).abs().max()) <= EXACT * float(want.abs().max())
    parameters = [sum(one.numel() for one in model.parameters()) for model in (masked, smaller)]
    assert parameters[1] < 0.65 * parameters[0]


@pytest.mark.parametrize("name", COMPILED)
def test_a_shrunk_network_is_compiled_and_gives_its_numbers(name: str, tmp_path: Path) -> None:
    masked, smaller, image = shrunk(name)
    path = ep.export_onnx(smaller, image, tmp_path / "net.onnx")
    artifact = compiling.compile_onnx(path, tmp_path / "out", runtime="native", target="rpi4")
    image.numpy().tofile(tmp_path / "in.bin")
    words = ["check", "--input", str(tmp_path / "in.bin"), "--output", str(tmp_path / "out.bin")]
    emulation.run_program(artifact.model, emulator("rpi4"), words)
    with torch.inference_mode():
        want = masked(image).numpy().ravel()
    assert np.abs(np.fromfile(tmp_path / "out.bin", np.float32) - want).max() <= TOLERANCE * np.abs(want).max()
