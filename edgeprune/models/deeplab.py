"""DeepLabv3 for segmentation (Chen et al. 2017, Rethinking atrous convolution) on a ResNet. Start with `build`.

Output stride 8: the backbone's last two stages dilate instead of reducing, and the pyramid's rates are 12, 24 and 36
(section 4.1 there). With a ResNet-50 and 21 classes: 39.64 M parameters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import UnknownNameError
from edgeprune.models.resnet_imagenet import ResNet

BACKBONES = {"resnet50": 50, "resnet101": 101}
RATES = (12, 24, 36)
WIDTH = 256


class ImagePooling(nn.Module):
    """The image's mean, through a 1x1 convolution, on every pixel: float32 [N, C, H, W] -> float32 [N, width, H, W]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.layers = _conv(in_channels, width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One number a channel, repeated."""
        size = x.shape[-2:]
        return functional.interpolate(self.layers(self.pool(x)), size=size, mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: five views of the features side by side, mixed to `width` channels.

    float32 [N, C, H, W] -> float32 [N, width, H, W].
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        views: list[nn.Module] = [_conv(in_channels, width, 1, 1)]
        views += [_conv(in_channels, width, 3, rate) for rate in RATES]
        views.append(ImagePooling(in_channels, width))
        self.views = nn.ModuleList(views)
        self.project = nn.Sequential(*_conv(len(views) * width, width, 1, 1), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mixed views."""
        result: torch.Tensor = self.project(torch.cat([view(x) for view in self.views], 1))
        return result


class DeepLabV3(nn.Module):
    """Features at an eighth of the resolution, the pyramid, one scoring convolution, enlarged bilinearly.

    float32 [N, C, H, W] -> float32 [N, classes, H, W].
    """

    def __init__(self, num_classes: int, in_channels: int, depth: int) -> None:
        super().__init__()
        self.backbone = ResNet(depth, None, in_channels, dilated=2)
        pyramid = Pyramid(self.backbone.out_channels, WIDTH)
        self.classifier = nn.Sequential(pyramid, _conv(WIDTH, WIDTH, 3, 1), nn.Conv2d(WIDTH, num_classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of every pixel, not normalised."""
        scores = self.classifier(self.backbone(x))
        return functional.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _conv(in_channels: int, width: int, size: int, dilation: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, width, size, 1, dilation * (size // 2), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def build(num_classes: int, in_channels: int, backbone: str = "resnet50") -> nn.Module:
    """DeepLabv3 on "resnet50" or "resnet101" (UnknownNameError)."""
    if backbone not in BACKBONES:
        raise UnknownNameError("backbone", backbone, BACKBONES, where="model deeplabv3")
    return DeepLabV3(num_classes, in_channels, BACKBONES[backbone])
