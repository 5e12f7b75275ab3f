"""LeNet-5 and LeNet-300-100 as the pruning papers count them. Start with `build` and `build_300`."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import UserError


class LeNet5(nn.Module):
    """Two convolutions and two linear layers, each but the last followed by a ReLU.

    float32 [N, C, S, S] -> float32 [N, classes]. At C = 1, S = 28: 431,080 parameters, 1,686 kB (of 1,024 bytes;
    1,684 of them weights and biases, the rest is the file's frame), 2.29 M MACs. Caffe's form has a ReLU after the
    first linear layer alone; the ones after the convolutions are usual since, and cost no parameter.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * side * side, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(torch.flatten(x, 1)))
        scores: torch.Tensor = self.fc2(x)
        return scores


class LeNet300(nn.Module):
    """Three linear layers of 300, 100 and `num_classes` units, the first two followed by a ReLU.

    float32 [N, C, S, S] -> float32 [N, classes]. At C = 1, S = 28: 266,610 parameters, 266,200 MACs.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * image_size * image_size, 300)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(300, 100)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        x = self.relu1(self.fc1(torch.flatten(x, 1)))
        scores: torch.Tensor = self.fc3(self.relu2(self.fc2(x)))
        return scores


def build(num_classes: int, in_channels: int, image_size: int = 28) -> nn.Module:
    """LeNet-5 for square images of `image_size` pixels; UserError below 16, where nothing is left to pool."""
    if image_size < 16:
        raise UserError(f"model lenet5: image_size is {image_size}", hint="image_size is at least 16")
    return LeNet5(num_classes, in_channels, image_size)


def build_300(num_classes: int, in_channels: int, image_size: int = 28) -> nn.Module:
    """LeNet-300-100 for square images of `image_size` pixels, 1 or more."""
    if image_size < 1:
        raise UserError(f"model lenet300: image_size is {image_size}", hint="image_size is at least 1")
    return LeNet300(num_classes, in_channels, image_size)
