"""What is asked of a criterion and cannot be done: told with the layer and the way out. And a user's own criterion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune import datasets, models, pruning
from edgeprune.cli import main
from edgeprune.errors import ModelError, UnknownNameError, UserError
from edgeprune.pruning import criteria, prune

IMAGE = torch.zeros(1, 3, 16, 16)
BATCH = (torch.randn(2, 3, 16, 16), torch.tensor([1, 0]))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))


def test_a_ratio_that_empties_a_layer() -> None:
    with pytest.raises(UserError, match=r"ratio 0.9 would leave none of the 4 filters of layer 0") as caught:
        prune(plain(), IMAGE, ratio={"0": 0.9, "2": 0.5})
    assert "at most 0.75" in caught.value.hint
    with pytest.raises(UserError, match=r"pruning ratio is 1.0 for layer 2"):
        prune(plain(), IMAGE, ratio={"2": 1.0})


def test_ratios_of_layers_that_are_not_there_or_compared() -> None:
    with pytest.raises(UnknownNameError, match="layer to prune 'conv1'"):
        prune(plain(), IMAGE, ratio={"conv1": 0.5})
    with pytest.raises(UserError, match="nothing to choose between layers"):
        prune(plain(), IMAGE, ratio={"0": 0.5}, scope="global")
    for method in ("magnitude", "sfp"):
        with pytest.raises(UserError, match=f"method {method} has one ratio, of the whole network"):
            prune(plain(), IMAGE, method, {"0": 0.5})


def test_bn_without_a_batchnorm() -> None:
    with pytest.raises(ModelError, match="layer 0 has no batch-norm") as caught:
        prune(plain(), IMAGE, "bn")
    assert "ratio={" in caught.value.hint


@pytest.mark.parametrize("method", [one for one in criteria.methods() if criteria.entry(one).looks_at_data])
@pytest.mark.parametrize("data", [None, []])
def test_no_data_where_data_is_needed(method: str, data: list | None) -> None:
    with pytest.raises(UserError, match=f"method {method} looks at data, and") as caught:
        prune(plain(), IMAGE, method, data=data)
    assert "data=[(images, labels)" in caught.value.hint


def test_of_a_dataset_some_hundred_images_from_all_over_it_are_looked_at() -> None:
    made = datasets.load("digits", (1, 8, 8))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    places = torch.linspace(0, len(made.train) - 1, 256).long().tolist()
    same = [(torch.stack([made.train[one][0] for one in places]), torch.zeros(256))]
    given, taken = (prune(model, IMAGE[:, :1], "hrank", data=data) for data in (same, made))
    assert given == taken


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.gate = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.conv(x) * self.gate(x))
        return result


def test_operations_that_nisp_does_not_know() -> None:
    with pytest.raises(ModelError, match="goes back through mul") as caught:
        prune(Gated(), IMAGE, "nisp")
    assert "taylor" in caught.value.hint


def test_methods_that_need_direct_readers_leave_streams_whole_and_say_so() -> None:
    model = models.build("resnet20", seed=1)
    masks = prune(model, IMAGE, "cop")
    assert "conv1" in masks.facts["left_out"]
    assert masks["conv1"].all()
    inner = [name for name in masks if name.endswith("conv1") and name != "conv1"]
    assert len(inner) == 9
    assert all(int(masks[name].sum()) * 2 == len(masks[name]) for name in inner)
    with pytest.raises(ModelError, match="the layers that read layer conv1: add"):
        prune(model, IMAGE, "cop", {"conv1": 0.5})
    with pytest.raises(ModelError, match="layer conv: mul"):
        prune(Gated(), IMAGE, "cop")


def test_a_model_without_class_scores() -> None:
    class Wrapped(nn.Sequential):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"scores": super().forward(x)}

    with pytest.raises(ModelError, match=r"puts out a .*dict"):
        prune(Wrapped(*plain()), IMAGE, "taylor", data=[BATCH])


def test_options() -> None:
    for given, part in (({"neighbour": 2}, "unknown option of method cop"), ({"neighbours": 0}, "is 0"),
                        ({"neighbours": 1.5}, "is 1.5")):  # fmt: skip
        with pytest.raises(UserError, match=part):
            prune(plain(), IMAGE, "cop", **given)
    with pytest.raises(UserError, match="l1 takes no options, and is given p"):
        prune(plain(), IMAGE, "l1", p=2)


def test_a_model_is_left_as_it_was() -> None:
    model = plain().train()
    for one in model.parameters():
        one.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = nn.Sequential(*model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for method in set(criteria.methods()) - {"bn"}:
        prune(scores, IMAGE, method, 0.5, data=iter([BATCH]))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not any(one.requires_grad or one.grad is not None for one in model.parameters())


# --- a user's own -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_criterion.py").write_text(
        "import torch\n"
        "def largest(layer, context, above=0.0):\n"
        "    return layer.weight.detach().abs().flatten(1).amax(1) + above * len(context.name)\n"
        "def short(layer, context):\n"
        "    return torch.zeros(1)\n"
        "def broken(layer, context):\n"
        "    return layer.wait\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_criterion_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = tmp_path / "site" / "largest_weights-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: largest-weights\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[edgeprune.criteria]\nlargest = own_criterion:largest\nl1 = own_criterion:broken\npsp = own_criterion:broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    model = plain()
    by_name, by_place = (prune(model, IMAGE, name, 0.5, above=0.25) for name in ("largest", "own_criterion:largest"))
    assert all(torch.equal(by_name[layer], by_place[layer]) for layer in by_place)
    assert prune(model, IMAGE, "l1", 0.5).facts["method"] == "l1"  # edgeprune's own names stay its own
    assert [pruning.users_place(name) for name in ("largest", "l1", "psp")] == ["own_criterion:largest", None, None]
    with pytest.raises(UnknownNameError, match="largestt") as raised:
        prune(model, IMAGE, "largestt", 0.5)
    assert "largest" in str(raised.value.hint)
    assert main(["methods"]) == 0
    assert "of an installed package: own_criterion:largest" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("ratio", [None, "0.5", True, [0.5]])
def test_a_ratio_that_is_no_number_is_told(ratio: object) -> None:
    with pytest.raises(UserError, match="pruning ratio is"):
        prune(plain(), IMAGE, "l1", ratio)  # type: ignore[arg-type]


@pytest.mark.usefixtures("own")
def test_a_users_own_criterion() -> None:
    model = plain()
    masks = prune(model, IMAGE, "own_criterion:largest", 0.5, above=0.25)
    largest = model[0].weight.detach().abs().flatten(1).amax(1)
    assert torch.equal(masks["0"], largest > largest.median())
    assert masks.facts["method"] == "own_criterion:largest"
    for name, part in (("short", "scores of shape .1."), ("absent", "has no 'absent'")):
        with pytest.raises((UserError, ModelError), match=part):
            prune(model, IMAGE, f"own_criterion:{name}")
    with pytest.raises(UserError, match=r"broken raised AttributeError.*own_criterion\.py:7\] for layer 0"):
        prune(model, IMAGE, "own_criterion:broken")
    with pytest.raises(UserError, match="no module named 'nowhere'"):
        prune(model, IMAGE, "nowhere:largest")
