"""ONNX files: equal numbers in ONNX Runtime, equal bytes in every process, nothing of the machine inside."""

import hashlib
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgeprune import models
from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting import check_parity, export_onnx, parity

OTHER_PROCESS = """
import sys, hashlib, torch
from pathlib import Path
from edgeprune import models
from edgeprune.exporting import export_onnx
folder = Path(sys.argv[1])
export_onnx(models.build("lenet5"), torch.zeros(1, 1, 28, 28), folder / "first.onnx")
model = models.build("resnet20", seed=3, shortcut="pad")
path = export_onnx(model, torch.zeros(1, 3, 32, 32), folder / "other.onnx")
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return models.build("resnet20", seed=3, shortcut="pad")


@pytest.fixture(scope="module")
def resnet_file(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(resnet, torch.zeros(1, 3, 32, 32), tmp_path_factory.mktemp("onnx") / "deep" / "resnet20.onnx")


def test_numbers_equal_in_onnxruntime(resnet: nn.Module, resnet_file: Path):
    images = torch.randn(1, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(resnet_file), providers=["CPUExecutionProvider"])
    (got,) = session.run(["output"], {"input": images.numpy()})
    resnet.eval()
    with torch.no_grad():
        expected = resnet(images).numpy()
    resnet.train()
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert check_parity(resnet, resnet_file, images) <= 1e-5
    assert resnet.training


def test_the_file_is_plain(resnet_file: Path):
    proto = onnx.load(resnet_file)
    onnx.checker.check_model(proto, full_check=True)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 20)]
    assert [[d.dim_value for d in one.type.tensor_type.shape.dim] for one in proto.graph.input] == [[1, 3, 32, 32]]
    assert [[d.dim_value for d in one.type.tensor_type.shape.dim] for one in proto.graph.output] == [[1, 10]]
    content = resnet_file.read_bytes()
    for trace in (str(Path(models.__file__).parents[2]), sys.prefix, str(Path.home()), "resnet.py", "File "):
        assert trace.encode() not in content
    assert [one.name for one in resnet_file.parent.iterdir()] == ["resnet20.onnx"]


def test_another_process_writes_the_same_bytes(resnet_file: Path, tmp_path: Path):
    root = Path(models.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split() == [hashlib.sha256(resnet_file.read_bytes()).hexdigest()]
    assert done.stderr == ""
    # table 2 of the round-trip paper: 1686 kB
    assert round((tmp_path / "first.onnx").stat().st_size / 1024) == 1686


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, output: torch.Tensor, input_0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.fc(output) + input_0
        return torch.relu(hidden), hidden * 2.0


def test_several_inputs_and_outputs_with_awkward_names(tmp_path: Path):
    inputs = (torch.randn(2, 3), torch.randn(2, 3))
    path = export_onnx(Several(), inputs, tmp_path / "a.onnx")
    graph = onnx.load(path).graph
    assert [one.name for one in graph.input] == ["input_0", "input_1"]
    assert [one.name for one in graph.output] == ["output_0", "output_1"]
    torch.manual_seed(0)
    model = Several()
    path = export_onnx(model, inputs, tmp_path / "b.onnx")
    assert check_parity(model, path, inputs) <= 1e-6


def test_exporting_is_quiet_and_leaves_settings(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    level, filters = logging.getLogger("torch.onnx").level, list(warnings.filters)
    export_onnx(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2), tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level
    assert warnings.filters == filters


class Decides(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if float(x.sum()) > 0 else x


def test_what_cannot_be_exported_is_told(tmp_path: Path):
    with pytest.raises(ExportError, match="Decides") as caught:
        export_onnx(Decides(), torch.zeros(2, 2), tmp_path / "a.onnx")
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_do_not_pass(resnet_file: Path, tmp_path: Path):
    other = models.build("resnet20", seed=4, shortcut="pad")
    with pytest.raises(ParityError, match=r"resnet20\.onnx differs from ResNet"):
        check_parity(other, resnet_file, torch.randn(1, 3, 32, 32))
    broken = models.build("resnet20", seed=3, shortcut="pad")
    with torch.no_grad():
        broken.fc.bias[0] = float("nan")
    with pytest.raises(ParityError, match="inf"):
        check_parity(broken, resnet_file, torch.randn(1, 3, 32, 32))
    (tmp_path / "torn.onnx").write_bytes(resnet_file.read_bytes()[:5000])
    with pytest.raises(ExportError, match=r"torn\.onnx"):
        check_parity(other, tmp_path / "torn.onnx", torch.randn(1, 3, 32, 32))
    with pytest.raises(ExportError, match=r"resnet20\.onnx"):
        check_parity(other, resnet_file, torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [2.0, -4.0], 0.25),
        ([[1.0], [-4.0]], [[1.0], [-2.0]], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], float("inf")),
        ([1e-9, 0.0], [0.0, 0.0], 1.0),
        ([1.0, float("nan")], [1.0, float("nan")], float("inf")),
        ([1.0, 2.0], [1.0, float("inf")], float("inf")),
        ([], [], 0.0),
        (3.0, 1.5, 0.5),
    ],
)
def test_parity(reference, other, expected: float):
    assert parity(np.array(reference), np.array(other)) == expected


def test_parity_of_other_shapes():
    with pytest.raises(ParityError, match=r"\[2\] and \[2, 1\]"):
        parity(np.zeros(2), np.zeros((2, 1)))
