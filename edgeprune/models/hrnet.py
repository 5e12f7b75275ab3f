"""HRNetV2 for segmentation (Sun et al. 2019, High-resolution representations for labeling pixels and regions).

Start with `build`, then `HRNet`. Up to four resolutions run side by side, from a quarter to a thirty-second of the
image's, and exchange what they know after every module (`Exchange`). The representation is all of them, enlarged to
the first one's size and concatenated (section 3.2 there). HRNet-48 is published with 65.9 M parameters for 19 classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeprune.models.resnet import BasicBlock
from edgeprune.models.resnet_imagenet import Bottleneck

MODULES = (1, 4, 3)
"""Modules of the stages with two, three and four resolutions."""
BLOCKS = 4
"""Blocks of each branch in a module, and of the first stage."""


class Exchange(nn.Module):
    """Every resolution receives the sum of all: lower ones through 1x1 convolutions and enlargement by repetition,
    higher ones through 3x3 convolutions of stride 2 (Sun et al. 2019, CVPR, section 3).

    A list of float32 [N, widths[i], H / 2^i, W / 2^i] -> the same shapes.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        rows = []
        for to in range(len(widths)):
            ways = [_way(widths, origin, to) for origin in range(len(widths))]
            rows.append(nn.ModuleDict({str(origin): way for origin, way in enumerate(ways) if way is not None}))
        self.ways = nn.ModuleList(rows)
        self.relus = nn.ModuleList(nn.ReLU() for _ in widths)

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """The streams after the exchange."""
        result = []
        for to, (row, relu) in enumerate(zip(self.ways, self.relus, strict=True)):
            ways = row._modules
            total = streams[0] if to == 0 else _through(ways, 0, streams)
            for origin in range(1, len(streams)):
                total = total + (streams[to] if origin == to else _through(ways, origin, streams))
            result.append(relu(total))
        return result


class Stage(nn.Module):
    """One module: a branch of basic blocks for each resolution, then the exchange. Shapes stay."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(BLOCKS))) for width in widths
        )
        self.exchange = Exchange(widths)

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """The streams after the branches and the exchange."""
        result: list[torch.Tensor] = self.exchange(
            [branch(stream) for branch, stream in zip(self.branches, streams, strict=True)]
        )
        return result


class HRNet(nn.Module):
    """A stem that reduces by 4, four stages, and a head that scores the concatenated resolutions.

    float32 [N, C, H, W] -> float32 [N, classes, H, W]; H and W are multiples of 32.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(in_channels, 64, 3, 2), nn.ReLU(), *_conv(64, 64, 3, 2), nn.ReLU())
        first = [Bottleneck(64 if number == 0 else 256, 64) for number in range(BLOCKS)]
        self.layer1 = nn.Sequential(*first)
        widths = tuple(width * 2**number for number in range(4))
        self.transitions = nn.ModuleList(
            [
                nn.ModuleList([_conv(256, widths[0], 3, 1, relu=True), _conv(256, widths[1], 3, 2, relu=True)]),
                nn.ModuleList([_conv(widths[1], widths[2], 3, 2, relu=True)]),
                nn.ModuleList([_conv(widths[2], widths[3], 3, 2, relu=True)]),
            ]
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Stage(widths[: number + 2]) for _ in range(modules)) for number, modules in enumerate(MODULES)
        )
        channels = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, num_classes, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The four resolutions: float32 [N, width 2^i, H / 2^(i + 2), W / 2^(i + 2)]."""
        streams = [self.layer1(self.stem(x))]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            # the first transition makes both streams anew, the others add one below the lowest
            made = [layers(streams[-1]) for layers in transition.children()]
            streams = made if len(streams) == 1 else streams + made
            for module in stage.children():
                streams = module(streams)
        return streams

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of every pixel, not normalised."""
        first, *lower = self.features(x)
        size = first.shape[-2:]
        enlarged = [functional.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in lower]
        scores = self.head(torch.cat([first, *enlarged], 1))
        return functional.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _conv(in_channels: int, width: int, size: int, stride: int, relu: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, width, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), *([nn.ReLU()] if relu else []))


def _way(widths: tuple[int, ...], origin: int, to: int) -> nn.Module | None:
    """From one resolution to another; None to itself."""
    if origin == to:
        return None
    if origin > to:
        enlarge = nn.Upsample(scale_factor=2 ** (origin - to), mode="nearest")
        return nn.Sequential(*_conv(widths[origin], widths[to], 1, 1), enlarge)
    halvings = [_conv(widths[origin], widths[origin], 3, 2, relu=True) for _ in range(to - origin - 1)]
    return nn.Sequential(*halvings, _conv(widths[origin], widths[to], 3, 2))


def _through(ways: dict[str, nn.Module | None], origin: int, streams: list[torch.Tensor]) -> torch.Tensor:
    way = ways[str(origin)]
    result: torch.Tensor = streams[origin] if way is None else way(streams[origin])
    return result


def build(num_classes: int, in_channels: int, width: int) -> nn.Module:
    """HRNet whose highest resolution has `width` channels: 18 or 48 in the papers."""
    return HRNet(num_classes, in_channels, width)
