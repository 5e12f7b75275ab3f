"""How long to train and how fast: a frozen record, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """A training run: stochastic gradient descent with Nesterov momentum under a one-cycle learning rate.

    Args:
        epochs: Passes over the training split, at most.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        peak_rate: Highest learning rate.
        warmup: Share of the steps over which the rate rises to the peak, in [0, 1); 0 is plain cosine decay.
        momentum: Of the gradient, in [0, 1).
        nesterov: Whether the momentum looks ahead.
        weight_decay: L2 penalty on convolution and linear weights; biases and batch-norm have none.
        shift: Each image is moved by up to so many pixels in both directions; its edge is repeated.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        patience: Stop after so many epochs without a better validation accuracy; None never stops early.
    """

    epochs: int
    batch_size: int = 64
    peak_rate: float = 0.1
    warmup: float = 0.3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    shift: int = 2
    label_smoothing: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        wholes = {"epochs": self.epochs, "batch_size": self.batch_size, "patience": self.patience}
        for name, whole in wholes.items():
            if whole is not None and whole < 1:
                raise UserError(f"schedule: {name} is {whole}", hint=f"{name} is at least 1")
        shares = {"warmup": self.warmup, "momentum": self.momentum, "label_smoothing": self.label_smoothing}
        for name, share in shares.items():
            if not 0.0 <= share < 1.0:
                raise UserError(f"schedule: {name} is {share}", hint=f"{name} lies in [0, 1)")
        if not (math.isfinite(self.peak_rate) and self.peak_rate > 0.0):
            raise UserError(f"schedule: peak_rate is {self.peak_rate}", hint="peak_rate is above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0.0) or self.shift < 0:
            raise UserError(
                f"schedule: weight_decay is {self.weight_decay} and shift is {self.shift}",
                hint="neither may be below 0",
            )
        if self.nesterov and self.momentum == 0.0:
            raise UserError("schedule: nesterov without momentum", hint="set nesterov false, or a momentum above 0")


def learning_rate(schedule: Schedule, step: int, steps: int) -> float:
    """The rate of step `step` of `steps`: a linear rise to the peak, then half a cosine down to nearly 0.

    Source: one-cycle, Smith and Topin 2018, with the cosine of Loshchilov and Hutter 2017 for the way down.

    >>> learning_rate(Schedule(epochs=1, warmup=0.0, peak_rate=0.2), 0, 10)
    0.2
    """
    rise = schedule.warmup * steps
    if step < rise:
        return schedule.peak_rate * (step + 1) / (math.floor(rise) + 1)
    return schedule.peak_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))


FROM_SCRATCH = Schedule(epochs=12)
FINE_TUNE = Schedule(epochs=5, peak_rate=0.05, warmup=0.2)
