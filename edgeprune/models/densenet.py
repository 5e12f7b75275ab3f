"""Densely connected networks (Huang et al. 2017), for small images and for ImageNet. Start with `DenseNet`.

B means bottlenecks (a 1x1 convolution to 4 k channels before each 3x3), C that transitions halve the channels. PSP
(table 4) trains ImageNet's networks without bottlenecks: DenseNet-C-63 has the 6-12-24-16 layers of DenseNet-BC-121.
It gives no layers for DenseNet-C-87; of all 82 layers in four blocks at k = 32, 6-12-48-16 alone meets its parameters
and its MACs both.

PSP counts DenseNet-C's parameters without batch-norm, 10.80 and 23.66 M, which are met; with batch-norm they are 10.87
and 23.81 M. DenseNet-BC-121 has 7.90 M without and 7.98 M with it; PSP gives 7.91 M.
"""

from __future__ import annotations

import torch
from torch import nn


class DenseLayer(nn.Module):
    """Batch-norm, ReLU, 3x3 convolution to `growth` channels; with `bottleneck` a 1x1 to 4 growth before.

    float32 [N, C, H, W] -> float32 [N, C + growth, H, W]: the input's channels, then the new ones.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        middle = 4 * growth if bottleneck else growth
        size = 1 if bottleneck else 3
        self.conv1 = nn.Conv2d(in_channels, middle, size, 1, size // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(middle) if bottleneck else None
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(middle, growth, 3, 1, 1, bias=False) if bottleneck else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input and what was computed from it, one after the other."""
        new = self.conv1(self.relu1(self.norm1(x)))
        if self.norm2 is not None and self.conv2 is not None:
            new = self.conv2(self.relu2(self.norm2(new)))
        return torch.cat([x, new], 1)


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between, mean over space, one linear layer.

    float32 [N, C, H, W] -> float32 [N, classes].

    Args:
        num_classes: Outputs.
        in_channels: Of the image.
        growth: Channels that each layer adds (k).
        blocks: Layers of each dense block.
        bottleneck: B.
        compression: C: transitions halve the channels.
        large_images: ImageNet's stem, which reduces by 4, instead of one 3x3 convolution.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        growth: int,
        blocks: tuple[int, ...],
        bottleneck: bool,
        compression: bool,
        large_images: bool,
    ) -> None:
        super().__init__()
        channels = 2 * growth if bottleneck or compression else 16
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)]
        if large_images:
            layers = [nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for number, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(channels, growth, bottleneck))
                channels += growth
            if number < len(blocks) - 1:
                width = channels // 2 if compression else channels
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, width, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                channels = width
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        scores: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return scores


def build(
    num_classes: int,
    in_channels: int,
    growth: int,
    blocks: tuple[int, ...],
    bottleneck: bool = False,
    compression: bool = False,
    large_images: bool = False,
) -> nn.Module:
    """A DenseNet; see `DenseNet` for the arguments."""
    return DenseNet(num_classes, in_channels, growth, blocks, bottleneck, compression, large_images)
