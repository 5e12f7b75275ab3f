"""What holds for every method that trains, and for the loop's hooks and kept states."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import edgeprune as ep
from edgeprune import training
from edgeprune.datasets import Dataset
from edgeprune.errors import StageError, UnknownNameError, UserError
from edgeprune.pruning import Masks, check_options, prune
from edgeprune.pruning.trained import ENTRIES, MethodEntry
from tests.unit.pruned_nets import quadrants, small_net

IMAGE = torch.zeros(1, 1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "shift": 0}
SHORT: dict[str, dict[str, Any]] = {
    "iterative": {"rounds": 2},
    "slimming": {"rounds": 2, "retrain_epochs": 1},
    "learned": {"retrain_epochs": 1},
    "neq": {"epsilon": 0.05},
}
RATIO = {"neq": 0.0}
EVERY = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


def pruned(entry: MethodEntry, seed: int = 0, **more: Any) -> Masks:
    options = QUICK | SHORT.get(entry.name, {}) | more
    return prune(small_net(), IMAGE, entry.name, RATIO.get(entry.name, 0.5), data=quadrants(), seed=seed, **options)


@EVERY
def test_its_masks_and_weights_go_through_shrink_unchanged(entry: MethodEntry) -> None:
    model = small_net()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    masks = pruned(entry)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    masked = masks.apply(model).eval()
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    shrunk = ep.shrink(masked, IMAGE).model
    assert torch.allclose(shrunk(images), masked(images), atol=1e-5)
    assert masks.facts["method"] == entry.name


@EVERY
def test_one_seed_gives_the_same_masks_and_weights_twice(entry: MethodEntry) -> None:
    first, again = pruned(entry, seed=3), pruned(entry, seed=3)
    assert first == again
    assert all(torch.equal(value, again.replaced[name]) for name, value in first.replaced.items())
    other = pruned(entry, seed=4)
    assert any(not torch.equal(value, other.replaced[name]) for name, value in first.replaced.items())


@EVERY
def test_its_options_are_those_of_its_function(entry: MethodEntry) -> None:
    function = importlib.import_module(entry.module).prune
    assert list(inspect.signature(function).parameters)[1:] == list(entry.options)


@EVERY
def test_interrupted_anywhere_it_ends_the_same(entry: MethodEntry, tmp_path: Path) -> None:
    def interrupt(step: training.TrainingStep) -> None:
        if step.epoch == 2:
            raise KeyboardInterrupt

    whole = pruned(entry)
    with pytest.raises(KeyboardInterrupt):
        pruned(entry, keep=tmp_path, progress=interrupt)
    assert list(tmp_path.glob("*.state"))
    resumed = pruned(entry, keep=tmp_path)
    assert resumed == whole
    assert all(torch.equal(value, resumed.replaced[name]) for name, value in whole.replaced.items())


def test_batches_are_data_too_and_none_is_told() -> None:
    images, labels = quadrants().train.tensors  # type: ignore[attr-defined]
    batches = list(zip(images.split(40), labels.split(40), strict=True))
    masks = prune(small_net(), IMAGE, "sfp", 0.5, data=batches, **QUICK)
    assert masks.pruned_filters == 14
    with pytest.raises(UserError, match="method sfp trains the network, and there is no data"):
        prune(small_net(), IMAGE, "sfp", 0.5)


def test_wrong_options_are_told_with_what_is_allowed() -> None:
    with pytest.raises(UnknownNameError, match="option of method slimming 'penalti'") as told:
        check_options("slimming", {"penalti": 1e-4})
    assert "did you mean penalty?" in str(told.value.hint)
    with pytest.raises(UserError, match="method slimming: rounds is 0"):
        check_options("slimming", {"rounds": 0.5})
    with pytest.raises(UserError, match="epochs is True"):
        check_options("slimming", {"epochs": True})
    check_options("slimming", {"penalty": 1, "nesterov": False})


def test_nan_stops_and_keeps_the_last_good_epoch() -> None:
    images, labels = quadrants().train.tensors  # type: ignore[attr-defined]

    @dataclass
    class Poison(training.Hooks):
        def before_step(self, model: nn.Module, rate: float) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 5:
                next(model.parameters()).grad.fill_(float("nan"))  # type: ignore[union-attr]

    split = TensorDataset(images, labels)
    made = Dataset("made", 4, (1, 8, 8), ("a", "b", "c", "d"), split, split, split)
    schedule = training.Schedule(epochs=2, batch_size=60, shift=0, warmup=0.0)
    model, one_epoch = small_net(), small_net()
    with pytest.raises(StageError, match=r"epoch 3, batch 2|NaN or infinity after epoch 3"):
        training.train(model, made, training.Schedule(epochs=4, batch_size=60, shift=0), hooks=Poison())
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    model = small_net()
    with pytest.raises(StageError, match="loss is nan"):
        training.train(model, made, schedule, hooks=_poisoned_in_epoch(1))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), one_epoch.parameters(), strict=True))


def _poisoned_in_epoch(step: int) -> training.Hooks:
    @dataclass
    class Poison(training.Hooks):
        done: int = 0

        def after_step(self, model: nn.Module, rate: float) -> None:
            self.done += 1
            if self.done == step:
                with torch.no_grad():
                    next(model.parameters()).fill_(float("nan"))

    return Poison()


def test_a_kept_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    keep = tmp_path / "training.state"
    schedule = training.Schedule(epochs=2, batch_size=40)
    training.train(small_net(), quadrants(), schedule, seed=1, keep=keep)
    first, second = small_net(), small_net()
    training.train(first, quadrants(), schedule, seed=2, keep=keep)
    training.train(second, quadrants(), schedule, seed=2)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
    keep.write_bytes(keep.read_bytes()[:1000])
    third = small_net()
    training.train(third, quadrants(), schedule, seed=2, keep=keep)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), third.parameters(), strict=True))


class Ordered(torch.utils.data.Dataset[tuple[torch.Tensor, ...]]):
    """A split in the order of its classes, as that of the digits is; remembers which classes it was asked for."""

    def __init__(self, split: TensorDataset) -> None:
        self.images, self.labels = (one[split.tensors[1].argsort(stable=True)] for one in split.tensors)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        self.asked.append(int(self.labels[place]))
        return self.images[place], self.labels[place]


@pytest.mark.parametrize(("method", "split"), [("serene", "train"), ("neq", "validation")])
def test_a_method_that_looks_at_few_images_sees_every_class(method: str, split: str) -> None:
    made = quadrants()
    data = replace(made, **{split: Ordered(getattr(made, split))})
    prune(small_net(), IMAGE, method, RATIO.get(method, 0.5), data=data, images=8, **(QUICK | {"epochs": 1}))
    assert sorted(getattr(data, split).asked[:8]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_iterative_s_criterion_sees_the_images_that_it_sees_alone() -> None:
    made = quadrants(800)
    data = replace(made, train=Ordered(made.train))  # type: ignore[arg-type]
    alone = prune(small_net(), IMAGE, "fma", 0.5, data=data)
    once = prune(small_net(), IMAGE, "iterative", 0.5, data=data, criterion="fma", rounds=1, **QUICK)
    assert once == alone
