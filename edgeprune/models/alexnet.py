"""AlexNet for images of 32 pixels (Krizhevsky et al. 2012, fitted to CIFAR). Start with `build`.

The round-trip paper gives 94.6 MB for its AlexNet on CIFAR-100 (table 3). AlexNet's five convolutions with 3x3 filters
for the first two, a stride of 2 in the first alone, and both hidden layers of 4,096 units come to 23,640,996
parameters at 100 classes, which are 94.56 MB.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import UserError

HIDDEN = 4096


class AlexNet(nn.Module):
    """Five convolutions, three poolings, two hidden layers with dropout: float32 [N, C, S, S] -> float32 [N, classes].

    At C = 3, S = 32 and 100 classes: 23.64 M parameters.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        side = (image_size + 1) // 2 // 8
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256 * side * side, HIDDEN), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        scores: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return scores


def build(num_classes: int, in_channels: int, image_size: int = 32) -> nn.Module:
    """AlexNet for square images of `image_size` pixels; UserError below 15, where nothing is left to pool."""
    if image_size < 15:
        raise UserError(f"model alexnet: image_size is {image_size}", hint="image_size is at least 15")
    return AlexNet(num_classes, in_channels, image_size)
