"""The int8 form of a network: near its numbers, weights per channel, the same bytes again, refusals with a reason."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgeprune import models
from edgeprune.errors import ExportError
from edgeprune.exporting import export_onnx, quantise


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(models.build("lenet5"), torch.zeros(1, 1, 28, 28), tmp_path_factory.mktemp("f") / "lenet5.onnx")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(32, 1, 28, 28)).astype(np.float32)


def test_values_stay_within_the_quanta_that_were_calibrated(lenet: Path, images: np.ndarray, tmp_path: Path):
    path = quantise(lenet, images, tmp_path / "int8.onnx")
    before, after = (
        onnxruntime.InferenceSession(str(one), providers=["CPUExecutionProvider"]) for one in (lenet, path)
    )
    got = np.concatenate([after.run(None, {"input": one[None]})[0] for one in images])
    expected = np.concatenate([before.run(None, {"input": one[None]})[0] for one in images])
    assert 0 < np.abs(got - expected).max() < 0.1 * np.ptp(expected)
    assert path.stat().st_size < 0.3 * lenet.stat().st_size


def test_weights_have_a_scale_a_channel_and_no_zero_point(lenet: Path, images: np.ndarray, tmp_path: Path):
    proto = onnx.load(quantise(lenet, images, tmp_path / "int8.onnx"))
    constants = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    for name, channels in (("conv1.weight", 20), ("conv2.weight", 50), ("fc1.weight", 500), ("fc2.weight", 10)):
        assert constants[f"{name}_quantized"].dtype == np.int8
        assert constants[f"{name}_scale"].shape == (channels,)
        assert not constants[f"{name}_zero_point"].any()


def test_what_only_moves_values_keeps_their_scale(images: np.ndarray, tmp_path: Path):
    class Moves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moved = nn.functional.pad(nn.functional.max_pool2d(x + 1.0, 2), (0, 0, 0, 0, 1, 2))
            return torch.index_select(moved, 1, torch.tensor([2, 1, 0])) + 1.0

    path = export_onnx(Moves(), torch.zeros(1, 1, 28, 28), tmp_path / "moves.onnx")
    proto = onnx.load(quantise(path, images, tmp_path / "int8.onnx"))
    scales = {node.input[0]: node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    made = {node.op_type: node.output[0] for node in reversed(proto.graph.node)}
    assert {scales[made[kind]] for kind in ("MaxPool", "Pad", "Gather")} == {scales[made["Add"]]}


def test_equal_input_gives_equal_bytes(lenet: Path, images: np.ndarray, tmp_path: Path):
    assert (
        quantise(lenet, images, tmp_path / "a.onnx").read_bytes()
        == quantise(lenet, images, tmp_path / "b.onnx").read_bytes()
    )


def test_images_of_another_shape_are_refused(lenet: Path, images: np.ndarray, tmp_path: Path):
    with pytest.raises(ExportError, match=r"takes images of \[1, 28, 28\]"):
        quantise(lenet, images[:, :, :20], tmp_path / "int8.onnx")


def test_a_quantised_network_is_not_quantised_again(lenet: Path, images: np.ndarray, tmp_path: Path):
    path = quantise(lenet, images, tmp_path / "int8.onnx")
    with pytest.raises(ExportError, match="quantised already"):
        quantise(path, images, tmp_path / "again.onnx")


def test_what_is_no_network_is_refused(images: np.ndarray, tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(ExportError, match="cannot be quantised"):
        quantise(tmp_path / "broken.onnx", images, tmp_path / "int8.onnx")
