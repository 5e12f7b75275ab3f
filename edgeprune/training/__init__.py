"""Training, and fine-tuning with masks held. Start with `train`; `schedule.py` says how long and how fast."""

from edgeprune.training.checkpoint import load_weights, save_checkpoint
from edgeprune.training.hooks import Hooks
from edgeprune.training.loop import LoopState, TrainingResult, TrainingStep, accuracy, train
from edgeprune.training.schedule import FINE_TUNE, FROM_SCRATCH, Schedule, learning_rate

__all__ = [
    "FINE_TUNE",
    "FROM_SCRATCH",
    "Hooks",
    "LoopState",
    "Schedule",
    "TrainingResult",
    "TrainingStep",
    "accuracy",
    "learning_rate",
    "load_weights",
    "save_checkpoint",
    "train",
]
