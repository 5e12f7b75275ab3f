"""Small colour images that stay in memory as bytes. Start with `ImagesInMemory`."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from edgeprune.datasets.augmentation import pad_crop_flip

LUMA = (0.299, 0.587, 0.114)
"""Of ITU-R BT.601: how a colour becomes grey."""


class ImagesInMemory(TorchDataset[tuple[torch.Tensor, ...]]):
    """Bytes that become standardised images one at a time: four times smaller than all of them as numbers.

    Args:
        pixels: uint8 [N, 3, H, W].
        labels: int64 [N].
        statistics: Mean and deviation of each stored channel, float32 [3] each, of pixels in 0 .. 1.
        input_shape: (C, H, W) to give: resized bilinearly; of one channel they are grey.
    """

    def __init__(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        statistics: tuple[torch.Tensor, torch.Tensor],
        input_shape: tuple[int, int, int],
    ) -> None:
        self.pixels = pixels
        self.labels = labels
        self.statistics = statistics
        self.input_shape = input_shape

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, ...]:
        return fitted(self.pixels[place], self.statistics, self.input_shape), self.labels[place]

    def augmented(self, place: int, seed: int) -> tuple[torch.Tensor, ...]:
        """The image padded, cropped and mirrored by chance, and its label."""
        image, label = self[place]
        return pad_crop_flip(image, torch.Generator().manual_seed(seed)), label


def fitted(
    pixels: torch.Tensor, statistics: tuple[torch.Tensor, torch.Tensor], input_shape: tuple[int, int, int]
) -> torch.Tensor:
    """uint8 [3, H, W] as a standardised image float32 of `input_shape`."""
    mean, deviation = statistics
    image = (pixels.float() / 255.0 - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    channels, height, width = input_shape
    if image.shape[-2:] != (height, width):
        image = functional.interpolate(
            image.unsqueeze(0), size=(height, width), mode="bilinear", align_corners=False
        ).squeeze(0)
    if channels != len(image):
        grey = (image * torch.tensor(LUMA).view(-1, 1, 1)).sum(0, keepdim=True)
        image = grey.expand(channels, -1, -1)
    return image.contiguous()


def statistics_of(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel of uint8 [N, 3, H, W], as fractions of 255; a deviation of 0 counts as 1."""
    per_channel = pixels.transpose(0, 1).flatten(1)
    # over the 256 values instead of the pixels: exact, and no copy of them all as numbers
    counted = torch.stack([torch.bincount(channel, minlength=256) for channel in per_channel]).double()
    values = torch.arange(256, dtype=torch.float64) / 255.0
    mean = (counted * values).sum(1) / counted.sum(1)
    variance = (counted * (values - mean[:, None]).square()).sum(1) / counted.sum(1)
    deviation = torch.where(variance > 0, variance.sqrt(), torch.ones(()).double())
    return mean.float(), deviation.float()
