"""Training: learns, repeats, holds masks, stops early with the best weights, tells its progress."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from edgeprune import datasets, models
from edgeprune.errors import DatasetError, StageError, UserError
from edgeprune.pruning import Masks
from edgeprune.training import (
    FINE_TUNE,
    FROM_SCRATCH,
    Schedule,
    TrainingStep,
    accuracy,
    learning_rate,
    train,
)
from edgeprune.training.batches import shift_images

SHORT = Schedule(epochs=2, peak_rate=0.05)


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    return datasets.load("digits", (1, 8, 8))


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(768, 10),
    )


def test_lenet5_learns_digits_to_97_percent():
    images = datasets.load("digits", (1, 28, 28))
    model = models.build("lenet5")
    result = train(model, images, dataclasses.replace(FROM_SCRATCH, epochs=6))
    assert accuracy(model, images.test) >= 0.97
    assert result.epochs_run == 6
    assert result.losses[-1] < result.losses[0] / 5
    assert not model.training


def test_same_seed_same_weights(digits: datasets.Dataset):
    def trained(seed: int) -> dict[str, torch.Tensor]:
        model = small_net()
        train(model, digits, SHORT, seed=seed)
        return model.state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["5.weight"], other["5.weight"])


def test_the_callers_random_state_stays(digits: datasets.Dataset):
    model = small_net()
    torch.manual_seed(77)
    expected = torch.rand(4)
    torch.manual_seed(77)
    train(model, digits, dataclasses.replace(SHORT, epochs=1))
    assert torch.equal(torch.rand(4), expected)


def test_masks_are_held_after_every_step(digits: datasets.Dataset):
    kept = torch.arange(12) % 3 != 0
    masks = Masks({"0": kept, "1": kept}, frozenset({"1"}))
    model = small_net()
    before = model[0].weight.detach().clone()
    seen = []

    class Watching(nn.Module):
        """Looks at the pruned filters in each training forward, so between all steps."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layers = (self.net[0].weight, self.net[0].bias, self.net[1].weight, self.net[1].bias)
            seen.append(max(float(one.detach()[~kept].abs().max()) for one in layers))
            return self.net(x)

    watching = Watching()
    prefixed = Masks({f"net.{name}": mask for name, mask in masks.items()})
    train(watching, digits, SHORT, masks=prefixed)
    assert len(seen) > 2 * math.ceil(1257 / 64)
    assert max(seen) == 0.0
    assert not torch.equal(model[0].weight[kept], before[kept])
    assert not model[0].weight[~kept].any()


def test_early_stop_restores_the_best_epoch(digits: datasets.Dataset):
    told: list[TrainingStep] = []
    model = small_net()
    schedule = Schedule(epochs=40, peak_rate=0.05, warmup=0.0, patience=2)
    result = train(model, digits, schedule, progress=told.append)
    reached = {step.epoch: step.validation_accuracy for step in told if step.batch == step.batches}
    assert result.epochs_run < 40
    best = max(reached.values())
    assert result.validation_accuracy == best == pytest.approx(accuracy(model, digits.validation))
    assert reached[result.best_epoch] == best
    first_best = min(epoch for epoch, value in reached.items() if value == best)
    assert result.epochs_run == first_best + 2


def test_progress_tells_every_epoch_and_in_order(digits: datasets.Dataset):
    told: list[TrainingStep] = []
    result = train(small_net(), digits, SHORT, progress=told.append)
    assert (told[0].epoch, told[0].batch, told[0].validation_accuracy) == (1, 1, None)
    ends = [step for step in told if step.batch == step.batches and step.validation_accuracy is not None]
    # a slow last batch is told before its epoch's end is
    assert list(dict.fromkeys(step.epoch for step in ends)) == [1, 2]
    assert {step.epochs for step in told} == {2}
    places = [(step.epoch, step.batch) for step in told]
    assert places == sorted(places)
    assert max(step.validation_accuracy for step in ends) == result.validation_accuracy


def test_sgd_step_follows_the_formula():
    """One full-batch step of a linear model against the update of momentum SGD written out in numpy."""
    images, labels = torch.randn(8, 1, 2, 2, dtype=torch.float64), torch.arange(8) % 3
    split = TensorDataset(images, labels)
    made = datasets.Dataset("made", 3, (1, 2, 2), ("a", "b", "c"), split, split, split)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    weight, bias = (one.detach().numpy().copy() for one in (model[1].weight, model[1].bias))
    schedule = Schedule(epochs=1, batch_size=8, peak_rate=0.3, warmup=0.0, weight_decay=0.01, shift=0)
    train(model, made, schedule)
    flat = images.flatten(1).numpy()
    scores = flat @ weight.T + bias
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    errors = (shares - np.eye(3)[labels.numpy()]) / 8
    # Nesterov's first step moves by the gradient and momentum times it
    gradient = errors.T @ flat + 0.01 * weight
    assert np.allclose(model[1].weight.detach().numpy(), weight - 0.3 * 1.9 * gradient, atol=1e-12)
    assert np.allclose(model[1].bias.detach().numpy(), bias - 0.3 * 1.9 * errors.sum(0), atol=1e-12)


def test_learning_rate_rises_to_the_peak_and_falls_to_nearly_nothing():
    schedule = Schedule(epochs=1, peak_rate=0.4, warmup=0.25)
    rates = [learning_rate(schedule, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.4)
    assert rates.index(max(rates)) == 25
    assert all(a < b for a, b in itertools.pairwise(rates[:26]))
    assert all(a > b for a, b in itertools.pairwise(rates[25:]))
    assert rates[62] == pytest.approx(0.4 * 0.5 * (1 + math.cos(math.pi * 37 / 75)))
    assert 0 < rates[-1] < 0.001


def test_shift_moves_each_image_and_repeats_its_edges():
    images = torch.arange(2 * 3 * 5 * 6, dtype=torch.float32).reshape(2, 3, 5, 6)
    moved = shift_images(images, 2, torch.Generator().manual_seed(4)).numpy()
    for before, after in zip(images.numpy(), moved, strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)), mode="edge")
        choices = [padded[:, row : row + 5, column : column + 6] for row in range(5) for column in range(5)]
        assert any(np.array_equal(after, choice) for choice in choices)
    assert shift_images(images, 0, torch.Generator()) is images


class OneByOne(TorchDataset):
    """A split that is no TensorDataset."""

    def __init__(self, split: TensorDataset) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        return self.split[place]


def test_any_split_and_accuracy_keeps_the_mode(digits: datasets.Dataset):
    model = small_net()
    train(model, digits, SHORT)
    model.train()
    images, labels = digits.test.tensors
    with torch.no_grad():
        right = (model.eval()(images).argmax(1) == labels).float().mean().item()
    model.train()
    frozen = next(model.children()).eval()
    before = [module.training for module in model.modules()]
    assert accuracy(model, digits.test) == pytest.approx(right)
    assert accuracy(model, OneByOne(digits.test)) == pytest.approx(right)
    assert [module.training for module in model.modules()] == before
    assert model.training
    assert not frozen.training


def test_diverging_training_says_so(digits: datasets.Dataset):
    with pytest.raises(StageError, match=r"epoch 1, batch \d+ of 20") as caught:
        train(small_net(), digits, Schedule(epochs=1, peak_rate=1e30))
    assert "peak_rate" in caught.value.hint


def test_empty_splits_are_told():
    empty = TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    made = datasets.Dataset("made", 3, (1, 8, 8), ("a", "b", "c"), empty, empty, empty)
    with pytest.raises(DatasetError, match="no train images"):
        train(small_net(), made, SHORT)
    with pytest.raises(DatasetError, match="without images"):
        accuracy(small_net(), empty)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"peak_rate": 0.0},
        {"peak_rate": float("nan")},
        {"warmup": 1.0},
        {"momentum": -0.1},
        {"weight_decay": -1.0},
        {"shift": -1},
        {"patience": 0},
        {"momentum": 0.0},
    ],
)
def test_impossible_schedules(wrong: dict):
    with pytest.raises(UserError, match=next(iter(wrong))):
        dataclasses.replace(FINE_TUNE, **wrong)
