"""The papers' networks: sizes against the papers, names, options, any image size, repeatable weights."""

import subprocess
import sys

import pytest
import torch
from torch import fx, nn

from edgeprune import models
from edgeprune.errors import UnknownNameError, UserError

RESNETS = ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]


def parameters(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def without_batchnorm(model: nn.Module) -> int:
    layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    return sum(parameters(one) for one in layers)


def resnet_weights(depth: int, in_channels: int, classes: int, projection: bool) -> int:
    """Convolutions and the linear layer of He et al. 2016, section 4.2, written out."""
    blocks = (depth - 2) // 6
    total = in_channels * 16 * 9
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += before * width * 9 + (2 * blocks - 1) * width * width * 9
        total += before * width if projection and before != width else 0
    return total + 64 * classes + classes


def test_lenet5_has_the_papers_size():
    model = models.build("lenet5")
    assert parameters(model) == 20 * 25 + 20 + 50 * 20 * 25 + 50 + 800 * 500 + 500 + 500 * 10 + 10 == 431_080
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_lenet5_takes_other_images():
    model = models.build("lenet5", num_classes=4, in_channels=3, image_size=32)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_resnet_weights_follow_the_paper(name: str, shortcut: str):
    model = models.build(name, shortcut=shortcut)
    depth = int(name.removeprefix("resnet"))
    assert without_batchnorm(model) == resnet_weights(depth, 3, 10, shortcut == "projection")


@pytest.mark.parametrize(
    ("name", "classes", "millions"), [("resnet56", 10, 0.85), ("resnet56", 100, 0.86), ("resnet110", 10, 1.72)]
)
def test_resnet_has_the_papers_size(name: str, classes: int, millions: float):
    projected = without_batchnorm(models.build(name, num_classes=classes))
    assert round(projected / 1e6, 2) == millions
    assert projected - without_batchnorm(models.build(name, num_classes=classes, shortcut="pad")) == 2_560


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8)])
def test_resnet_runs_traced_on_any_image_size(shortcut: str, size: tuple[int, int]):
    model = models.build("resnet20", num_classes=7, in_channels=1, shortcut=shortcut).eval()
    traced = fx.symbolic_trace(model)
    images = torch.randn(2, 1, *size)
    with torch.no_grad():
        assert torch.equal(traced(images), model(images))
    assert model(images).shape == (2, 7)


def test_resnet_layers_have_the_usual_names():
    names = dict(models.build("resnet20").named_modules())
    for name in ("conv1", "bn1", "layer1.0.conv1", "layer1.0.bn2", "layer2.0.downsample.0", "layer3.2.conv2", "fc"):
        assert name in names


def test_pad_shortcut_keeps_the_input_between_zeros():
    model = models.build("resnet20", shortcut="pad")
    images = torch.randn(1, 16, 8, 8)
    result = model.get_submodule("layer2.0.downsample")(images)
    assert result.shape == (1, 32, 4, 4)
    assert torch.equal(result[:, 8:24], images[:, :, ::2, ::2])
    assert not result[:, :8].any()
    assert not result[:, 24:].any()


def test_same_seed_same_weights_and_the_callers_random_state_stays():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (models.build("resnet20", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [model.get_parameter("layer2.0.conv1.weight") for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", models.names())
def test_an_entry_describes_its_model(name: str):
    entry = models.entry(name)
    with torch.device("meta"):  # shapes alone: some of these networks take seconds for one image
        model = models.build(name, num_classes=7).eval()
        scores = model(torch.zeros(2, *entry.input_shape))
    assert scores.shape == ((2, 7) if entry.task == "classification" else (2, 7, *entry.input_shape[1:]))
    assert entry.summary
    assert entry.paper


@pytest.mark.parametrize("build", [models.build, models.entry])
def test_unknown_model_names_the_nearest(build):
    with pytest.raises(UnknownNameError, match="lenet") as caught:
        build("lenet")
    assert "did you mean lenet5?" in caught.value.hint


@pytest.mark.parametrize("options", [{"shortcut": "paddd"}, {"short": "pad"}, {"depth": 26}])
def test_unknown_option_or_value(options: dict):
    with pytest.raises(UnknownNameError, match="resnet20"):
        models.build("resnet20", **options)


@pytest.mark.parametrize("numbers", [{"num_classes": 0}, {"in_channels": 0}, {"in_channels": -1}])
def test_numbers_out_of_range(numbers: dict):
    with pytest.raises(UserError, match=next(iter(numbers))):
        models.build("resnet20", **numbers)
    with pytest.raises(UserError, match="image_size"):
        models.build("lenet5", image_size=12)


def test_lists_need_no_torch():
    program = (
        "import sys; from edgeprune import models, datasets, pruning, counting, exporting;"
        "models.names(); datasets.names(); pruning.methods(); models.entry('lenet5');"
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
