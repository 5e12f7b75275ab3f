"""SegNet for segmentation (Badrinarayanan et al. 2017). Start with `build`; `unpool` is its idea.

The encoder is VGG-16's thirteen convolutions with batch-norm, the decoder their mirror image. Instead of learning to
enlarge, each decoder block puts its numbers where the encoder's pooling found its maxima. At 3 channels and 12 classes:
29.45 M parameters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeprune.models.vgg import WIDTHS, conv_block


class SegNet(nn.Module):
    """Five blocks down, five up: float32 [N, C, H, W] -> float32 [N, classes, H, W]; H and W are multiples of 32."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        for widths in WIDTHS:
            self.encoder.append(nn.Sequential(*conv_block(in_channels, widths, batchnorm=True)))
            in_channels = widths[-1]
        self.decoder = nn.ModuleList()
        for number in range(len(WIDTHS) - 1, -1, -1):
            width = WIDTHS[number][-1]
            last = WIDTHS[number - 1][-1] if number else None
            if last is None:
                layers = [*conv_block(width, (width,), batchnorm=True), nn.Conv2d(width, num_classes, 3, 1, 1)]
            else:
                layers = conv_block(width, (*WIDTHS[number][1:], last), batchnorm=True)
            self.decoder.append(nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of every pixel, not normalised."""
        full = []
        for block in self.encoder:
            full.append(block(x))
            x = functional.max_pool2d(full[-1], 2)
        for block in self.decoder:
            x = block(unpool(x, full.pop()))
        return x


def unpool(values: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Each number at the place of the first maximum of its 2x2 window of `pooled`, zeros elsewhere.

    What torch's max_unpool2d does with the indices of max_pool2d, written with arithmetic alone: compilers for devices
    know no pooling with indices. float32 [N, C, H, W] and [N, C, 2 H, 2 W] -> [N, C, 2 H, 2 W].

    >>> window = torch.tensor([[[[1.0, 3.0], [3.0, 2.0]]]])
    >>> unpool(torch.tensor([[[[7.0]]]]), window).tolist()
    [[[[0.0, 7.0], [0.0, 0.0]]]]
    """
    most = functional.max_pool2d(pooled, 2)
    # 1 where the window's number is below its maximum, 0 where it is the maximum
    first = values * torch.sign(most - pooled[:, :, ::2, ::2])
    second = first * torch.sign(most - pooled[:, :, ::2, 1::2])
    third = second * torch.sign(most - pooled[:, :, 1::2, ::2])
    above = torch.stack([values - first, first - second], 4).flatten(3)
    below = torch.stack([second - third, third], 4).flatten(3)
    return torch.stack([above, below], 3).flatten(2, 3)


def build(num_classes: int, in_channels: int) -> nn.Module:
    """SegNet on VGG-16's encoder."""
    return SegNet(num_classes, in_channels)
