"""Small networks and batches for the tests of methods that train."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgeprune.datasets import Dataset


def small_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch-norm, one hidden linear layer, a classifier: images [N, 1, 8, 8] of four classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 4),
        )  # fmt: skip


class Residual(nn.Module):
    """A stem, two residual blocks over one stream, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 6, 3, padding=1)
        self.third = nn.Conv2d(6, 7, 3, padding=1)
        self.fourth = nn.Conv2d(7, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = torch.relu(x + self.fourth(torch.relu(self.third(x))))
        return self.head(x.mean((2, 3)))


def residual_net(seed: int = 0) -> Residual:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual()


def quadrants(count: int = 160, seed: int = 0) -> Dataset:
    """Noisy images whose class is the brightest quarter; a small network learns it in a few epochs."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 0.5 * torch.randn(count, 1, 8, 8, generator=random)
    for place, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[place, 0, row : row + 4, column : column + 4] += 1.0
    cut = count * 3 // 4
    train, rest = TensorDataset(images[:cut], labels[:cut]), TensorDataset(images[cut:], labels[cut:])
    return Dataset("quadrants", 4, (1, 8, 8), ("a", "b", "c", "d"), train, rest, rest)
