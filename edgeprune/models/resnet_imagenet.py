"""Residual networks for ImageNet (He et al. 2016, table 1): 18, 50 and 101 layers. Start with `build`, then `ResNet`.

Layers are named as everybody names them: conv1, bn1, layer1.0.conv1, ..., layer4.2.bn3, fc.

What PSP (section 4) calls ResNet-B is this network with bottleneck blocks, as ResNet-50 and 101 have them anyway. Its
4.09 G MACs for 50 layers tell that a bottleneck's stride stands at its 3x3 convolution (`stride="3x3"`, as in all
libraries since); in the original it stands at the 1x1 convolution before, which makes 3.86 G (`stride="1x1"`).

Against the papers: ResNet-50 has 25.557 M parameters, 25.610 M with the running mean and variance of its batch-norms,
which PSP counts. ResNet-18 has 11.690 M (11.699 M with those); PSP's 11.85 M for "ResNet-B, 18 layers" is 1.3 % more
than either, at the same 1.82 G MACs that this one has, so no other layers explain it. ResNet-101's 44.549 M weights are
178.2 MB, the round-trip paper's file of 178.4 MB has its frame around them.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import UnknownNameError
from edgeprune.models.resnet import BasicBlock, downsample

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BASIC_DEPTHS = (18,)
WIDTHS = (64, 128, 256, 512)
STRIDES = ("3x3", "1x1")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the last one widens by 4.

    float32 [N, C, H, W] -> float32 [N, 4 width, H / stride, W / stride]. The stride stands at the 3x3 convolution, or
    at the first with `early_stride`.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, early_stride: bool = False
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if early_stride else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu3 = nn.ReLU()
        self.downsample = downsample(in_channels, width * self.expansion, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """ReLU of the residual branch plus the shortcut."""
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(branch)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu3(branch + shortcut)
        return result


class ResNet(nn.Module):
    """A stem that reduces by 4, four stages, and, if there are classes, mean over space and one linear layer.

    float32 [N, C, H, W] -> float32 [N, classes]; without classes -> float32 [N, 512 or 2048, H / 32, W / 32].

    Args:
        depth: 18, 50 or 101.
        num_classes: None leaves the head out, for a network that uses the features.
        in_channels: Of the image.
        early_stride: Where bottlenecks have their stride (see `Bottleneck`).
        dilated: So many of the last stages keep their resolution and dilate their filters instead
            (Chen et al. 2017, Rethinking atrous convolution, section 3.1); bottlenecks only.
    """

    def __init__(
        self, depth: int, num_classes: int | None, in_channels: int, early_stride: bool = False, dilated: int = 0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages: list[nn.Module] = []
        channels, dilation = 64, 1
        for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True)):
            stride, before = (1 if number == 0 else 2), dilation
            if number >= len(WIDTHS) - dilated:
                stride, dilation = 1, dilation * 2
            layers: list[nn.Module] = []
            for place in range(blocks):
                step, spread = (stride, before) if place == 0 else (1, dilation)
                if depth in BASIC_DEPTHS:
                    layers.append(BasicBlock(channels, width, step))
                    channels = width * BasicBlock.expansion
                else:
                    layers.append(Bottleneck(channels, width, step, spread, early_stride))
                    channels = width * Bottleneck.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = channels
        self.fc: nn.Linear | None = None
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised; or the last stage's features."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.fc is None:
            return x
        scores: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def build(num_classes: int, in_channels: int, depth: int, stride: str = "3x3") -> nn.Module:
    """A ResNet of `depth` layers; `stride` says which convolution of a bottleneck has it, "3x3" or "1x1"."""
    if stride not in STRIDES:
        raise UnknownNameError("stride", stride, STRIDES, where=f"model resnet{depth}")
    return ResNet(depth, num_classes, in_channels, early_stride=stride == "1x1")
