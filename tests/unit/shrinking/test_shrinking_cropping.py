"""A part of an image whose size forward computes keeps channels apart, as in the shortcuts of a U-Net."""

from __future__ import annotations

import pytest
import torch
from operator_networks import Net, check, conv, masked
from torch import Tensor, nn
from torch.nn import functional as F

CROPS = [
    "torch.cat([y[:, :, : x.shape[2] - 2, : x.shape[3] - 1], y[:, :, 2 : x.shape[2], 1:]], 1)",
    "y[..., 1 : x.size(2) - 1, 1 : x.size(-1) - 1]",
    "y[:, :, (y.shape[2] - 4) // 2 : (y.shape[2] - 4) // 2 + 4, :4]",
    "(lambda size: y[:, :, : size[0], : size[1]])(F.avg_pool2d(x, 2).shape[-2:])",
    "y.narrow(2, 1, x.shape[2] - 2)",
    "torch.narrow(y, -1, 0, x.shape[3] - 2)",
    "F.interpolate(F.avg_pool2d(y, 2), size=x.shape[-2:])",
]


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("biases", [False, True], ids=["A", "B"])
def test_a_crop_by_sizes_from_forward_keeps_channels_apart(crop: str, biases: bool) -> None:
    parts = crop.count("y[") if "cat" in crop else 1
    net = Net(f"last((lambda y: {crop})(a(x)))", a=conv(3, 8, 3), last=conv(8 * parts, 2, 3))
    # one more stands for the constants before the zero border, of both parts where they are two
    check(masked(net, {"a": [0, 4, 5]}, biases=biases), {"a": (3, 5 + biases), "last": (5 * parts + biases, 2)})


class UNet(nn.Module):
    """One step down and up again; what comes up is cut to the size of what stayed."""

    def __init__(self, *, exported: bool) -> None:
        super().__init__()
        self.a, self.last = conv(3, 8, 3), conv(16, 2, 3)
        self.down, self.up = nn.Conv2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 2, 2)
        self.exported = exported

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        up = F.relu(self.up(F.relu(self.down(a))))
        if self.exported and x.shape[2] < 4:  # torch.fx can not decide
            return a
        return self.last(torch.cat([a, up[:, :, : a.shape[2], : a.shape[3]]], 1))


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("biases", [False, True], ids=["A", "B"])
def test_a_unet_that_crops(exported: bool, biases: bool) -> None:
    net = masked(UNet(exported=exported), {"a": [0, 1], "down": [2, 3, 7]}, biases=biases)
    carrier = int(biases)
    widths = {"a": (3, 6 + carrier), "down": (6 + carrier, 5 + carrier), "last": (14 + carrier, 2)}
    check(net, widths, sizes=(9,) if exported else (9, 13))  # torch.export holds to even or odd sizes
