"""MobileNetV2 (Sandler et al. 2018, table 2), of width 1.0, 1.4 or any other. Start with `build`.

At 1,000 classes: width 1.0 has 3.505 M parameters and 0.30 G MACs, as published (3.4 M, 300 M). Width 1.4 has 6.109 M
and 0.58 G; the paper's 6.9 M (table 4 there) is 13 % more and its 585 M MACs are met, so the difference lies where
parameters cost next to no MACs, in the head: its last layers widened once more would make it up.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import UserError

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 convolution that widens, depthwise 3x3, 1x1 that narrows; plus the input where the shapes agree.

    float32 [N, C, H, W] -> float32 [N, width, H / stride, W / stride].
    """

    def __init__(self, in_channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        widen = [] if expansion == 1 else _conv(in_channels, middle, 1)
        self.conv = nn.Sequential(
            *widen,
            *_conv(middle, middle, 3, stride, groups=middle),
            nn.Conv2d(middle, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.adds = stride == 1 and in_channels == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The branch, or its sum with the input; no activation behind."""
        branch: torch.Tensor = self.conv(x)
        return x + branch if self.adds else branch


class MobileNetV2(nn.Module):
    """Seventeen inverted residuals between two convolutions, mean over space, one linear layer.

    float32 [N, C, H, W] -> float32 [N, classes].
    """

    def __init__(self, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        channels = rounded(FIRST * width)
        layers: list[nn.Module] = [nn.Sequential(*_conv(in_channels, channels, 3, 2))]
        for expansion, base, blocks, stride in STAGES:
            for place in range(blocks):
                layers.append(InvertedResidual(channels, rounded(base * width), stride if place == 0 else 1, expansion))
                channels = rounded(base * width)
        last = rounded(LAST * max(1.0, width))
        self.features = nn.Sequential(*layers, *_conv(channels, last, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        scores: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return scores


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not less than nine tenths of what was asked for.

    >>> rounded(32 * 1.4), rounded(24 * 0.35)
    (48, 8)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _conv(in_channels: int, width: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, width, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU6()]


def build(num_classes: int, in_channels: int, width: float = 1.0) -> nn.Module:
    """MobileNetV2 with all channels multiplied by `width`, above 0 (UserError)."""
    if not 0.0 < width < float("inf"):
        raise UserError(f"model mobilenetv2: width is {width}", hint="width is above 0, such as 1.0 or 1.4")
    return MobileNetV2(num_classes, in_channels, width)
