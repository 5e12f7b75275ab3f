"""`edgeprune shrink`: the files it writes, what it prints, and how each wrong input is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

import edgeprune as ep
from edgeprune import shrinking
from edgeprune.cli import main
from edgeprune.models import resnet

OWN = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, image, facts):
        x = torch.relu(self.conv(image))
        if x.shape[-1] > 4:
            x = torch.nn.functional.max_pool2d(x, 2)
        return {"classes": self.last(x.mean((2, 3)) + self.fc(facts))}

def two(): return Two()

class ByValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x

def by_value(): return ByValue()
"""


def halved(model: torch.nn.Module) -> torch.nn.Module:
    """A network without half of its filters, and with shifts that these leave behind."""
    masked = ep.prune(model, torch.randn(2, 3, 32, 32), method="l1", ratio=0.5).apply(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5, generator=generator)
    return masked


@pytest.fixture(scope="module")
def masked() -> torch.nn.Module:
    return halved(ep.models.build("resnet20", 10, 3, seed=1))


@pytest.fixture(scope="module")
def weights(masked: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "masked.safetensors"
    save_file(masked.state_dict(), path)
    return path


SHORT = "from edgeprune.models import resnet\n\ndef build():\n    return resnet.build(10, 3, depth=8)\n"


@pytest.fixture
def here(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(weights, tmp_path / "masked.safetensors")
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shrink(*arguments: str, weights: str = "masked.safetensors") -> int:
    return main(["shrink", *arguments, "--weights", weights])


def test_every_file_is_the_same_network(
    here: Path, masked: torch.nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shrink("resnet20", "-o", "out/shrunk.onnx") == 0
    images = torch.randn(1, 3, 32, 32)
    loaded = ep.load_shrunk("out/shrunk")
    session = onnxruntime.InferenceSession("out/shrunk.onnx")
    (by_onnx,) = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        expected, given = masked(images), loaded(images)
    assert torch.allclose(given, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    np.testing.assert_allclose(by_onnx, expected.numpy(), rtol=0, atol=1e-5 * float(expected.abs().max()))
    state = torch.load("out/shrunk.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"shrunk.{kind}" for kind in ("json", "onnx", "pt", "safetensors")
    ]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["layer", "kind", "inputs", "outputs", "parameters", "kept"]
    assert {line.split()[0] for line in lines} >= {"conv1", "fc"}
    assert any("outputs removed: dead filter" in line and "layers)" in line for line in lines)
    assert any(line.startswith("parameters ") and "MACs" in line for line in lines)


def test_the_table_of_a_deep_network_is_narrow(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = ep.models.build("resnet56", 10, 3)
    save_file(ep.prune(deep, torch.zeros(1, 3, 32, 32), ratio=0.5).apply(deep).state_dict(), "deep.safetensors")
    assert shrink("resnet56", "-o", "d.onnx", weights="deep.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert 100 < len(lines) < 150
    assert max(map(len, lines)) <= 100


def params(path: str) -> int:
    return sum(p.numel() for p in ep.load_shrunk(path).parameters())


def test_options_reach_the_shrinker(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        given.append(options)
        return plain(*arguments, **options)

    plain = shrinking.shrink
    monkeypatch.setattr(shrinking, "shrink", spy)
    (here / "short_net.py").write_text(SHORT)
    save_file(halved(resnet.build(10, 3, depth=8)).state_dict(), "short.safetensors")
    for name, options in {
        "auto": [], "gather": ["--additions", "gather"], "drop": ["--constants", "drop", "--additions", "gather"],
        "gradient": ["--method", "gradient", "--additions", "gather"], "aligned": ["--align", "16"],
        "dense": ["--columns", "keep"],
    }.items():  # fmt: skip
        status = shrink("short_net:build", "-o", f"{name}.onnx", *options, weights="short.safetensors")
        assert status == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert ("constants of removed filters were dropped" in said) == (name == "drop")
    assert params("drop") < params("gather") <= params("auto") < params("aligned")
    assert params("gradient") == params("gather")
    usual = {"additions": "auto", "constants": "exact", "method": "connectivity", "align": None, "columns": "auto"}
    asked: list[dict[str, Any]] = [
        {}, {"additions": "gather"}, {"constants": "drop", "additions": "gather"},
        {"method": "gradient", "additions": "gather"}, {"align": 16}, {"columns": "keep"},
    ]  # fmt: skip
    assert given == [usual | options for options in asked]


def test_the_same_command_works_twice_and_tells_the_shape_that_it_guessed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "plain_net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 4, 3)\n")
    save_file(torch.nn.Conv2d(3, 4, 3).state_dict(), "plain.safetensors")
    for _ in range(2):
        assert shrink("plain_net:build", "-o", "twice.onnx", weights="plain.safetensors") == 0
        assert "made for 1,3,32,32, the default; --input-shape names another" in capsys.readouterr().out


def test_a_method_without_a_rule_is_a_wrong_request(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "soft_net.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1))\n"
    )
    save_file(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).state_dict(), "soft_weights.safetensors")
    given = ["soft_net:build", "-o", "soft.onnx", "--method", "gradient"]
    assert shrink(*given, weights="soft_weights.safetensors") == 2
    assert "no rule for 1 (Softmax)" in capsys.readouterr().err


def test_a_width_that_is_no_number_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shrink("resnet20", "-o", "a.onnx", "--align", "x")
    assert "'x' is no width of a vector: 8 or 16" in capsys.readouterr().err


def test_a_model_of_ones_own_with_two_inputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec: dict[str, Any] = {}
    exec(OWN, spec)  # noqa: S102 - the text above
    model = spec["two"]()
    with torch.no_grad():
        model.conv.weight[:5] = 0.0
        model.fc.weight[3:] = 0.0
    save_file(model.state_dict(), "own.safetensors")
    shapes = ["--input-shape", "3,8,8", "--input-shape", "5"]
    assert shrink("own_nets:two", "-o", "two.onnx", *shapes, weights="own.safetensors") == 0
    said = capsys.readouterr().out
    assert "training mode" not in said
    assert "two.onnx: made for 1,3,8,8 and 1,5" in said
    assert "torch.export" in said
    inputs = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    with torch.no_grad():
        assert torch.allclose(ep.load_shrunk("two")(*inputs)["classes"], model(*inputs)["classes"], atol=1e-5)


def test_no_zero_filter_is_told_and_gives_an_equal_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = ep.models.build("resnet20", 10, 3, seed=4).eval()
    save_file(dense.state_dict(), "dense.safetensors")
    assert shrink("resnet20", "-o", "same.onnx", weights="dense.safetensors") == 0
    assert "nothing to remove" in capsys.readouterr().out
    loaded, images = ep.load_shrunk("same"), torch.randn(1, 3, 32, 32)
    assert loaded.state_dict().keys() == dense.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(loaded(images), dense(images))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet20", "-o", "a.onnx", "--additions", "gahter"], ["unknown form of additions 'gahter'", "gather"]),
        (["resnet20", "-o", "a.onnx", "--constants", "keep"], ["unknown treatment of constants 'keep'", "exact"]),
        (["resnet20", "-o", "a.onnx", "--method", "gradients"], ["'gradients'", "did you mean gradient?"]),
        (["resnet20", "-o", "a.onnx", "--align", "7"], ["can not be aligned to 7", "8, 16"]),
        (["resnet20", "-o", "a.onnx", "--device", "gpu"], ["unknown device 'gpu'", "cuda"]),
        (["resnet20", "-o", "a.onnx", "--input-shape", "1,32,32"], ["conv1.weight", "[16, 1, 3, 3]"]),
        (["resnet20", "-o", "a.onnx", "--input-shape", "32"], ["takes one image", "3,32,32"]),
        (["resnet20", "-o", "a.pt"], ["names no .onnx file", "shrunk.onnx"]),
        (["resnet20", "-o", "."], ["names no .onnx file"]),
        (["resnet20", "-o", "masked.onnx"], ["would overwrite the masked weights", "another name"]),
        (["own_nets:two", "-o", "a.onnx"], ["does not fit Two"]),
        (["own_nets:three", "-o", "a.onnx"], ["no 'three'", "two"]),
    ],
)
def test_a_wrong_input_is_one_line_and_a_hint(
    here: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shrink(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("edgeprune: ")
    assert len(said.err.splitlines()) == 2
    for word in words:
        assert word in said.err
    assert not list(here.glob("a.*"))


def test_shapes_that_the_model_refuses_name_the_option(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec: dict[str, Any] = {}
    exec(OWN, spec)  # noqa: S102 - the text above
    save_file(spec["two"]().state_dict(), "own.safetensors")
    assert shrink("own_nets:two", "-o", "a.onnx", "--input-shape", "4,8,8", weights="own.safetensors") == 2
    assert "--input-shape" in capsys.readouterr().err
    save_file(spec["by_value"]().state_dict(), "own.safetensors")
    assert shrink("own_nets:by_value", "-o", "a.onnx", "--input-shape", "3", weights="own.safetensors") == 2
    said = capsys.readouterr().err
    assert "own_nets.py:" in said
    assert "torch.where" in said


@pytest.mark.parametrize("shape", ["3,?,?", "-1,3", "3,32,", "batch", "3,0,32"])
def test_open_sizes_are_refused(here: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        shrink("resnet20", "-o", "a.onnx", f"--input-shape={shape}")
    assert ended.value.code == 2
    assert "is not C,H,W" in capsys.readouterr().err


def test_a_place_that_can_not_be_written_is_told_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("")
    assert shrink("resnet20", "-o", "file/deeper/a.onnx") == 1
    assert "can not be written" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, which this is about the absence of")
def test_without_cuda_the_device_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shrink("resnet20", "-o", "a.onnx", "--device", "cuda") == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_the_files_are_the_same(here: Path) -> None:
    assert shrink("resnet20", "-o", "gpu.onnx", "--device", "cuda") == 0
    assert shrink("resnet20", "-o", "cpu.onnx") == 0
    by_gpu, by_cpu = ep.load_shrunk("gpu").state_dict(), ep.load_shrunk("cpu").state_dict()
    assert {name: value.shape for name, value in by_gpu.items()} == {
        name: value.shape for name, value in by_cpu.items()
    }
