"""VGG-16 (Simonyan and Zisserman 2015, configuration D) with a head for small images or for ImageNet.

Start with `build`. The two heads:

- "cifar": the last feature map's pixels, one hidden layer of 512 units, the classes. The round-trip paper gives
  60.0 MB for its VGG-16 on CIFAR-10 (table 3) and no layers; with batch-norm this one holds 14,990,922 parameters,
  which are 59.96 MB, and 60.00 MB with the running mean and variance of every batch-norm.
- "imagenet": two hidden layers of 4,096 units with dropout, as published: 138.36 M parameters at 1,000 classes, without
  batch-norm.

`SegNet` takes its encoder from here (`conv_block`).
"""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.errors import UnknownNameError, UserError

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HEADS = ("cifar", "imagenet")
SCALE = 32  # five poolings by 2


def conv_block(in_channels: int, widths: tuple[int, ...], batchnorm: bool) -> list[nn.Module]:
    """3x3 convolutions, each followed by batch-norm if wanted and by a ReLU, as a flat list of modules."""
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(nn.Conv2d(in_channels, width, 3, 1, 1))
        layers += [nn.BatchNorm2d(width)] if batchnorm else []
        layers.append(nn.ReLU())
        in_channels = width
    return layers


class VGG16(nn.Module):
    """Thirteen convolutions in five blocks, each ending in a pooling: float32 [N, C, S, S] -> float32 [N, classes]."""

    def __init__(self, num_classes: int, in_channels: int, head: str, batchnorm: bool, image_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for widths in WIDTHS:
            layers += [*conv_block(in_channels, widths, batchnorm), nn.MaxPool2d(2)]
            in_channels = widths[-1]
        self.features = nn.Sequential(*layers)
        inputs = in_channels * (image_size // SCALE) ** 2
        if head == "cifar":
            self.classifier = nn.Sequential(nn.Linear(inputs, 512), nn.ReLU(), nn.Linear(512, num_classes))
        else:
            self.classifier = nn.Sequential(
                nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout(0.5),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
                nn.Linear(4096, num_classes),
            )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, not normalised."""
        scores: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return scores


def build(num_classes: int, in_channels: int, head: str, batchnorm: bool = True, image_size: int = 32) -> nn.Module:
    """VGG-16 for square images of `image_size` pixels, 32 or more (UserError); `head` is "cifar" or "imagenet"."""
    if head not in HEADS:
        raise UnknownNameError("head", head, HEADS, where="model vgg16")
    if image_size < SCALE:
        raise UserError(f"model vgg16: image_size is {image_size}", hint=f"image_size is at least {SCALE}")
    return VGG16(num_classes, in_channels, head, batchnorm, image_size)
