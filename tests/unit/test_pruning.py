"""Pruning: masks against numpy, the layers that may go, ratios, ties, files, mistakes."""

import copy
import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune import models, pruning
from edgeprune.errors import ModelError, TraceError, UnknownNameError, UserError, WeightsError
from edgeprune.pruning import Masks, prune

IMAGE = torch.zeros(1, 3, 16, 16)
RATIOS = [0.0, 0.3, 0.5, 0.7, 0.99]


def numpy_scores(weight: torch.Tensor, method: str) -> np.ndarray:
    flat = weight.detach().numpy().astype(np.float64).reshape(weight.shape[0], -1)
    return np.abs(flat).sum(1) if method == "l1" else np.sqrt((flat**2).sum(1))


def numpy_kept(scores: np.ndarray, ratio: float) -> np.ndarray:
    """Rank by sorting pairs (score, place); the lowest go."""
    gone = min(math.floor(ratio * len(scores) + 0.5), len(scores) - 1)
    order = sorted(range(len(scores)), key=lambda place: (scores[place], place))
    kept = np.ones(len(scores), dtype=bool)
    kept[order[:gone]] = False
    return kept


@pytest.mark.parametrize("method", ["l1", "l2"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_local_masks_equal_numpy(name: str, method: str, ratio: float):
    model = models.build(name, seed=4)
    masks = prune(model, IMAGE, method=method, ratio=ratio)
    layers = {key: one for key, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    last = list(layers)[-1]
    assert set(masks) - masks.batchnorms == set(layers) - {last}
    for key in set(masks) - masks.batchnorms:
        expected = numpy_kept(numpy_scores(layers[key].weight, method), ratio)
        assert np.array_equal(masks[key].numpy(), expected), key


@pytest.mark.parametrize("method", ["l1", "l2"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7])
def test_global_masks_equal_numpy(method: str, ratio: float):
    model = models.build("resnet20", seed=4)
    masks = prune(model, IMAGE, method=method, ratio=ratio, scope="global")
    names = [key for key, one in model.named_modules() if isinstance(one, nn.Conv2d)]
    scores = {key: numpy_scores(model.get_parameter(f"{key}.weight"), method) for key in names}
    normalised = {key: one / (one.sum() / len(one)) for key, one in scores.items()}
    together = np.sort(np.concatenate(list(normalised.values())))
    wanted = math.floor(ratio * len(together) + 0.5)
    # these fresh weights leave no layer empty, so one threshold says it all
    threshold = together[wanted - 1] if wanted else -1.0
    assert masks.pruned_filters == wanted
    for key in names:
        assert np.array_equal(masks[key].numpy(), normalised[key] > threshold), key


def test_global_leaves_one_filter_in_each_layer_and_meets_the_ratio():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        # one filter carries nearly all of the first layer's score, so the other seven have the lowest scores
        model[0].weight.fill_(1e-3)
        model[0].weight[3] = 100.0
    masks = prune(model, IMAGE, ratio=0.75, scope="global")
    assert masks["0"].tolist() == [place == 3 for place in range(8)]
    assert masks.pruned_filters == 12
    all_gone = prune(model, IMAGE, ratio=0.99, scope="global")
    assert [int(one.sum()) for one in all_gone.values()] == [1, 1]


def test_equal_scores_go_in_order():
    model = nn.Sequential(nn.Conv2d(1, 6, 1, bias=False), nn.Conv2d(6, 2, 1))
    nn.init.ones_(model[0].weight)
    for scope in ("local", "global"):
        masks = prune(model, torch.zeros(1, 1, 4, 4), ratio=0.5, scope=scope)
        assert masks["0"].tolist() == [False] * 3 + [True] * 3


def test_random_follows_its_seed():
    model = models.build("resnet20")
    first, again, other = (prune(model, IMAGE, method="random", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert hash(first) == hash(again)
    assert first != other
    assert first.ratio == other.ratio == 0.5


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    ratio=st.floats(0.0, 0.999),
    scope=st.sampled_from(["local", "global"]),
    method=st.sampled_from(["l1", "l2", "random"]),
)
def test_every_layer_keeps_a_filter_and_the_ratio_is_near(widths: list[int], ratio: float, scope: str, method: str):
    channels = [2, *widths, 3]
    model = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(channels)))
    masks = prune(model, torch.zeros(1, 2, 4, 4), method=method, ratio=ratio, scope=scope)
    assert list(masks) == [str(place) for place in range(len(widths))]
    assert all(bool(one.any()) for one in masks.values())
    if scope == "global":
        most = sum(widths) - len(widths)
        assert masks.pruned_filters == min(most, math.floor(ratio * sum(widths) + 0.5 + 1e-9))
    else:
        for one, width in zip(masks.values(), widths, strict=True):
            gone = width - int(one.sum())
            assert gone == width - 1 or abs(gone - ratio * width) <= 0.5 + 1e-6


class Branches(nn.Module):
    """Every rule of what may be pruned, in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stem_bn = nn.BatchNorm2d(8)
        self.read_twice = nn.Conv2d(8, 8, 1)
        self.shared_bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.plain_bn = nn.Conv2d(8, 8, 1)
        self.no_affine = nn.BatchNorm2d(8, affine=False)
        self.hidden = nn.Linear(8, 16)
        self.hidden_bn = nn.BatchNorm1d(16)
        self.head_a = nn.Conv2d(8, 4, 1)
        self.head_b = nn.Linear(16, 5)
        self.unused = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.stem_bn(self.stem(x)))
        y = self.read_twice(x)
        x = self.shared_bn(y) + y
        x = self.no_affine(self.plain_bn(self.depthwise(x)))
        hidden = torch.relu(self.hidden_bn(self.hidden(x.mean((2, 3)))))
        return nn.functional.interpolate(torch.relu(self.head_a(x)), scale_factor=2.0), self.head_b(hidden)


def test_which_layers_and_batchnorms_are_pruned():
    masks = prune(Branches(), IMAGE)
    assert list(masks) == ["stem", "stem_bn", "read_twice", "plain_bn", "hidden", "hidden_bn"]
    assert masks.batchnorms == {"stem_bn", "hidden_bn"}
    assert (masks.filters, masks.pruned_filters) == (8 + 8 + 8 + 16, 4 + 4 + 4 + 8)
    kept = prune(Branches(), IMAGE, batchnorm="keep")
    assert list(kept) == ["stem", "read_twice", "plain_bn", "hidden"]


class DepthwiseHead(nn.Module):
    """The channels of `first` reach the output through a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 1)
        self.first = nn.Conv2d(6, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.skip = nn.Conv2d(3, 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.depthwise(self.first(self.body(x))), self.skip(x)], 1)


def test_channels_of_the_output_stay():
    assert list(prune(DepthwiseHead(), IMAGE)) == ["body"]


def test_apply_zeroes_a_copy_and_hold_the_model_itself():
    model = models.build("resnet20", seed=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    masks = prune(model, IMAGE, ratio=0.4)
    before = copy.deepcopy(model.state_dict())
    masked = masks.apply(model)
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    for name, kept in masks.items():
        layer, original = masked.get_submodule(name), model.get_submodule(name)
        for part in ("weight", "bias"):
            new, old = getattr(layer, part), getattr(original, part)
            if new is not None:
                assert not new[~kept].any()
                assert torch.equal(new[kept], old[kept])
    masks.hold(model)
    assert all(torch.equal(masked.state_dict()[name], one) for name, one in model.state_dict().items())
    assert masked.training == model.training
    # the pruned channels are zero behind the batch-norm too
    seen = {}
    masked.get_submodule("bn1").register_forward_hook(lambda module, inputs, output: seen.update(out=output))
    masked.eval()(torch.randn(1, 3, 16, 16))
    assert not seen["out"][:, ~masks["conv1"]].any()


def test_files_come_back_with_equal_bytes(tmp_path: Path):
    masks = prune(models.build("resnet20"), IMAGE, ratio=0.3, seed=5)
    path = masks.save(tmp_path / "new" / "a.safetensors")
    read = Masks.load(path)
    assert read == masks
    assert dict(read.facts) == {"method": "l1", "ratio": 0.3, "seed": 5, "scope": "local", "batchnorm": "mask"}
    assert Masks(dict(reversed(list(masks.items()))), masks.batchnorms, masks.facts).save(
        tmp_path / "b"
    ).read_bytes() == (path.read_bytes())
    assert pickle.loads(pickle.dumps(masks)) == masks  # noqa: S301 - our own bytes
    path.write_bytes(path.read_bytes()[:50])
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(UserError, match="not a masks file"):
            Masks.load(wrong)


def test_masks_cannot_be_changed():
    kept = {"a": torch.tensor([True, False])}
    masks = Masks(kept)
    kept["a"][0] = False
    kept["b"] = torch.tensor([True])
    assert list(masks) == ["a"]
    assert masks["a"].tolist() == [True, False]
    with pytest.raises(AttributeError):
        masks.kept = {}
    with pytest.raises(TypeError):
        masks.kept["b"] = torch.tensor([True])
    assert Masks({}).ratio == 0.0


@pytest.mark.parametrize("mask", [torch.ones(3), torch.tensor(True)])
def test_masks_of_a_wrong_kind(mask: torch.Tensor):
    with pytest.raises(UserError, match="mask of a"):
        Masks({"a": mask})


@pytest.mark.parametrize(
    ("name", "filters", "part"),
    [("nowhere", 8, "no such layer"), ("0", 7, "7 entries, the layer 8"), ("1", 8, "ReLU has no filters")],
)
def test_masks_of_another_model(name: str, filters: int, part: str):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with pytest.raises(ModelError, match=part):
        Masks({name: torch.ones(filters, dtype=torch.bool)}).apply(model)


@pytest.mark.parametrize("ratio", [1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_ratio_outside_its_range(ratio: float):
    with pytest.raises(UserError, match="ratio"):
        prune(models.build("lenet5"), IMAGE, ratio=ratio)


@pytest.mark.parametrize("wrong", [{"method": "l11"}, {"scope": "locally"}, {"batchnorm": "masks"}])
def test_unknown_names(wrong: dict):
    with pytest.raises(UnknownNameError) as caught:
        prune(models.build("lenet5"), IMAGE, **wrong)
    assert "did you mean" in caught.value.hint
    with pytest.raises(UnknownNameError):
        pruning.entry("l11")


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.conv(x)
        return x


def test_models_that_cannot_be_pruned():
    with pytest.raises(ModelError, match="no layer to prune"):
        prune(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), IMAGE)
    with pytest.raises(TraceError, match=r"Decides.*test_pruning\.py:\d+") as caught:
        prune(Decides(), IMAGE)
    assert caught.value.hint
    broken = models.build("lenet5")
    with torch.no_grad():
        broken.conv2.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="conv2"):
        prune(broken, IMAGE)
    with pytest.raises(UserError, match="example_inputs"):
        prune(models.build("lenet5"), [1, 2])


def test_replaced_values_are_put_in_before_the_mask_and_travel_with_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    new = {"0.weight": torch.tensor([5.0, 6.0]).view(2, 1, 1, 1), "1.running_mean": torch.tensor([1.0, 2.0])}
    masks = Masks({"0": torch.tensor([True, False])}, facts={"method": "made"}, replaced=new)
    before = model[0].weight.detach().clone()
    for one in (masks, Masks.load(masks.save(tmp_path / "m.safetensors")), copy.deepcopy(masks)):
        masked = one.apply(model)
        assert masked[0].weight.flatten().tolist() == [5.0, 0.0]
        assert masked[1].running_mean.tolist() == [1.0, 2.0]
        assert list(one) == ["0"]
    assert torch.equal(model[0].weight, before)
    with pytest.raises(ModelError, match=r"no .1\.running_mean."):
        masks.apply(nn.Sequential(nn.Conv2d(1, 2, 1)))
