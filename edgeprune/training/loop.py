"""One plain training loop, from nothing or under masks. Start with `train`, then `_run_epoch`.

All that an interrupted training needs to go on stands in `LoopState`: weights and momentum, the epoch, the random
stream, the best weights so far, and what hooks remember. `resume.py` keeps it in a file, epoch by epoch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edgeprune.datasets import Dataset
from edgeprune.errors import DatasetError, StageError
from edgeprune.evaluation import in_evaluation_mode
from edgeprune.pruning import Masks
from edgeprune.training.batches import Split, evaluation_batches, training_batches
from edgeprune.training.hooks import Hooks
from edgeprune.training.resume import load_state, save_state, training_identity
from edgeprune.training.schedule import FROM_SCRATCH, Schedule, learning_rate

Weights = dict[str, torch.Tensor]
PROGRESS_EVERY_S = 0.2
EVALUATION_BATCH = 128
EVALUATION_PIXELS = 128 * 3 * 224 * 224


@dataclass(frozen=True)
class TrainingStep:
    """How far a training is; epochs and batches count from 1.

    `loss` is the cross-entropy of the last batch, `validation_accuracy` (0 to 1) that of the last finished epoch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    validation_accuracy: float | None


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to: the model holds the weights of `best_epoch` and is in evaluation mode."""

    best_epoch: int
    validation_accuracy: float
    epochs_run: int
    losses: tuple[float, ...]
    seconds: float


@dataclass
class LoopState:
    """Everything that changes while a model is trained.

    `epoch` is the number of epochs done, `best_epoch` the one of `best_weights`, `gained_epoch` the last one that was
    better than all before it.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    random: torch.Generator
    hooks: Hooks = field(default_factory=Hooks)
    epoch: int = 0
    best_epoch: int = 0
    gained_epoch: int = 0
    best_accuracy: float = -1.0
    best_weights: Weights = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    dataset: Dataset,
    schedule: Schedule = FROM_SCRATCH,
    *,
    seed: int = 0,
    masks: Masks | None = None,
    progress: Callable[[TrainingStep], None] | None = None,
    hooks: Hooks | None = None,
    keep: Path | None = None,
) -> TrainingResult:
    """Train a model in place by cross-entropy, and leave it with its best weights on the validation split.

    Of epochs that are equally good, the later one counts. The same seed, data and number of threads give the same
    weights. The caller's own random state is left as it was.

    Args:
        model: float32 [N, C, H, W] -> float32 [N, classes] or, for segmentation, [N, classes, H, W]; trained on the
            device where its weights are.
        dataset: Train and validation splits are used, the test split is not.
        schedule: How long and how fast.
        seed: Of the order of images, the shifts and any dropout.
        masks: Pruned filters are set to zero before the first step and after every step.
        progress: Called at the first batch, then at least every 0.2 s (or every batch if a batch takes longer), and
            at each epoch's end with the new validation accuracy.
        hooks: What a pruning method adds. With hooks the last epoch's weights count, not the best: a network that
            becomes sparser epoch by epoch is at its best before it is.
        keep: A file that is written after every epoch. The same training goes on from it if it was interrupted; it is
            left there, for whoever named it.

    Raises:
        StageError: The loss or a weight is no longer a finite number; the model is left with the weights of its last
            good epoch (before the first, those it came with).
        DatasetError: A split is empty.

    Source: Loshchilov and Hutter 2017, Smith and Topin 2018 (the rate); Li et al. 2017 (retraining pruned networks).

    >>> from edgeprune import datasets
    >>> made = datasets.load("synthetic", (1, 8, 8))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> train(model, made, Schedule(epochs=3)).epochs_run
    3
    """
    begin = time.monotonic()
    _require_images(dataset)
    if masks is not None:
        masks.hold(model)
    identity = "" if keep is None else training_identity(model, masks or {}, schedule, seed, hooks, dataset.name)
    state = _start(model, schedule, seed, hooks)
    watch = _Watch(progress)
    device = _device(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if keep is not None:
            load_state(keep, state, identity)
        while state.epoch < schedule.epochs and not _is_stale(state, schedule):
            _run_good_epoch(state, dataset, schedule, masks, watch)
            _judge(state, dataset, watch, last_counts=hooks is not None)
            if keep is not None:
                save_state(keep, state, identity)
    model.load_state_dict(state.best_weights)
    model.eval()
    return TrainingResult(
        best_epoch=state.best_epoch,
        validation_accuracy=state.best_accuracy,
        epochs_run=state.epoch,
        losses=tuple(state.losses),
        seconds=time.monotonic() - begin,
    )


def accuracy(model: nn.Module, split: Split, *, reads_files: bool = False) -> float:
    """Share of a split's images (0 to 1) whose highest score is their label's; each module's mode is kept.

    For segmentation the share of pixels, without those whose label is below 0 (ignored).
    """
    device = _device(model)
    count = len(split)  # type: ignore[arg-type]
    if count == 0:
        raise DatasetError("accuracy of a split without images", hint="give a split with at least one image")
    right = counted = 0
    # images of this many pixels take as much memory as a batch of the small ones does
    size = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // split[0][0].numel()))
    with in_evaluation_mode(model), torch.inference_mode():
        for images, labels in evaluation_batches(split, size, reads_files):
            labels = labels.to(device)
            right += int((model(images.to(device)).argmax(1) == labels).sum())
            counted += int((labels >= 0).sum())
    return right / counted if counted else 0.0


def _start(model: nn.Module, schedule: Schedule, seed: int, hooks: Hooks | None) -> LoopState:
    hooks = hooks or Hooks()
    groups = hooks.parameter_groups(model)
    taken = {id(one) for group in groups for one in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups.append({"params": [p for p in rest if p.dim() > 1], "weight_decay": schedule.weight_decay})
    groups.append({"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, lr=schedule.peak_rate, momentum=schedule.momentum, nesterov=schedule.nesterov)
    return LoopState(model, optimizer, torch.Generator().manual_seed(seed), hooks)


def _is_stale(state: LoopState, schedule: Schedule) -> bool:
    return schedule.patience is not None and state.epoch - state.gained_epoch >= schedule.patience


def _run_good_epoch(state: LoopState, dataset: Dataset, schedule: Schedule, masks: Masks | None, watch: _Watch) -> None:
    """One epoch; if it ends in NaN, the weights from before it are put back."""
    good = copy.deepcopy(state.model.state_dict())
    try:
        _run_epoch(state, dataset, schedule, masks, watch)
        for name, value in state.model.named_parameters():
            if not bool(torch.isfinite(value).all()):
                raise StageError(
                    f"training: {name} holds NaN or infinity after epoch {state.epoch}",
                    hint=f"lower the learning rate (peak_rate is {schedule.peak_rate})",
                )
    except StageError:
        state.model.load_state_dict(good)
        raise


def _judge(state: LoopState, dataset: Dataset, watch: _Watch, *, last_counts: bool) -> None:
    """Measure the epoch that has ended, and keep its weights if they are the ones to leave the model with."""
    reached = accuracy(state.model, dataset.validation, reads_files=dataset.reads_files)
    watch.epoch_ended(reached)
    if reached > state.best_accuracy:
        state.gained_epoch = state.epoch
    if reached >= state.best_accuracy or last_counts:
        state.best_weights = copy.deepcopy(state.model.state_dict())
        state.best_accuracy, state.best_epoch = reached, state.epoch


def _run_epoch(state: LoopState, dataset: Dataset, schedule: Schedule, masks: Masks | None, watch: _Watch) -> None:
    """One pass over the training split in a new random order; the model's weights and the state's epoch move on."""
    device = _device(state.model)
    count = len(dataset.train)  # type: ignore[arg-type]
    batches = math.ceil(count / schedule.batch_size)
    order = torch.randperm(count, generator=state.random)
    total = 0.0
    state.model.train()
    chosen = torch.split(order, schedule.batch_size)
    made = training_batches(dataset.train, chosen, schedule.shift, state.random, dataset.reads_files)
    for batch, (images, labels) in enumerate(made):
        rate = learning_rate(schedule, state.epoch * batches + batch, schedule.epochs * batches)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        scores = state.model(images.to(device))
        loss = functional.cross_entropy(scores, labels.to(device), label_smoothing=schedule.label_smoothing)
        penalty = state.hooks.penalty(state.model)
        loss = loss if penalty is None else loss + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        state.hooks.before_step(state.model, rate)
        state.optimizer.step()
        state.hooks.after_step(state.model, rate)
        if masks is not None:
            masks.hold(state.model)
        value = loss.item()
        if not math.isfinite(value):
            raise StageError(
                f"training: the loss is {value} in epoch {state.epoch + 1}, batch {batch + 1} of {batches}",
                hint=f"lower the learning rate (peak_rate is {schedule.peak_rate}) or look for NaN in the data; "
                "the weights from before this epoch are kept",
            )
        total += value * len(images)
        watch.batch_done(state.epoch + 1, schedule.epochs, batch + 1, batches, value)
    state.epoch += 1
    state.hooks.after_epoch(state.model, dataset, state.epoch)
    state.losses.append(total / count)


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _require_images(dataset: Dataset) -> None:
    held_out = "every tenth training image of a class is held out: add images until a class has ten"
    for name, split, hint in (
        ("train", dataset.train, "add images to the train split"),
        ("validation", dataset.validation, held_out),
    ):
        if len(split) == 0:  # type: ignore[arg-type]
            raise DatasetError(f"dataset {dataset.name}: no {name} images", hint=hint)


class _Watch:
    """Passes steps on to the caller's progress function, not more often than is of use."""

    def __init__(self, progress: Callable[[TrainingStep], None] | None) -> None:
        self.progress = progress
        self.last: TrainingStep | None = None
        self.told_at = -math.inf
        self.validation_accuracy: float | None = None

    def batch_done(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        self.last = TrainingStep(epoch, epochs, batch, batches, loss, self.validation_accuracy)
        if time.monotonic() - self.told_at >= PROGRESS_EVERY_S:
            self._tell(self.last)

    def epoch_ended(self, validation_accuracy: float) -> None:
        self.validation_accuracy = validation_accuracy
        if self.last is not None:
            last = self.last
            self._tell(TrainingStep(last.epoch, last.epochs, last.batch, last.batches, last.loss, validation_accuracy))

    def _tell(self, step: TrainingStep) -> None:
        self.told_at = time.monotonic()
        if self.progress is not None:
            self.progress(step)
