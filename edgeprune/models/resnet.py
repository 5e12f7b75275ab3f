"""Residual networks for small images (He et al. 2016, section 4.2). Start with `build`, then `BasicBlock`.

Layers are named as everybody names them: conv1, bn1, layer1.0.conv1, ..., layer3.2.bn2, fc.

The papers give 0.85 M parameters for ResNet-56 (0.86 M for 100 classes) and 1.72 M for ResNet-110. With projections
those are, exactly, the weights of convolutions and of the linear layer; batch-norm adds 0.5 %. With padding they are
2,560 fewer, which is 0.3 % of ResNet-56. ResNet-32 as an ONNX file takes 1.87 MB with its batch-norm folded, 7 % less
than the 2.0 MB of table 3 in the round-trip paper, which does not say what else its file holds.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import UnknownNameError

SHORTCUTS = ("projection", "pad")
WIDTHS = (16, 32, 64)


class PadShortcut(nn.Module):
    """Option A: every second pixel, and zero channels for those that the stage adds; no parameters.

    float32 [N, C, H, W] -> float32 [N, C + added, ceil(H / 2), ceil(W / 2)]; half of the zeros before, half after.
    """

    def __init__(self, added: int) -> None:
        super().__init__()
        self.before = added // 2
        self.after = added - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The subsampled, padded input."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def downsample(in_channels: int, width: int, stride: int, shortcut: str = "projection") -> nn.Module | None:
    """What brings a block's input to the shape of its output; None where it has that shape."""
    if stride == 1 and in_channels == width:
        return None
    if shortcut == "pad":
        return PadShortcut(width - in_channels)
    return nn.Sequential(nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: float32 [N, C, H, W] -> float32 [N, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, shortcut: str = "projection") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.downsample = downsample(in_channels, width, stride, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """ReLU of the residual branch plus the shortcut."""
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu2(branch + shortcut)
        return result


class ResNet(nn.Module):
    """Depth 6n + 2: one convolution, three stages of n blocks, mean over space, one linear layer.

    float32 [N, C, H, W] -> float32 [N, classes], for any H and W of 4 pixels or more.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, shortcut: str) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks, 1, shortcut)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, 2, shortcut)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def _stage(in_channels: int, width: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(in_channels, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width, 1, shortcut) for _ in range(blocks - 1)))


def build(num_classes: int, in_channels: int, depth: int, shortcut: str = "projection") -> nn.Module:
    """A ResNet of `depth` layers; `shortcut` is "projection" (1x1 convolution, option B) or "pad" (option A)."""
    if shortcut not in SHORTCUTS:
        raise UnknownNameError("shortcut", shortcut, SHORTCUTS, where=f"model resnet{depth}")
    return ResNet(depth, num_classes, in_channels, shortcut)
