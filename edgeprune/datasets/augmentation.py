"""What training does to an image so that it never sees the same one twice. Start with `pad_crop_flip`.

All draw from the generator that is given, so the same seed gives the same image in whatever process it is made.
An image is float32 [C, H, W]; a label may be a map int64 [H, W], which is moved with its image.
"""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORED = -100
"""The label of pixels that count neither in the loss nor in the accuracy: what torch's cross-entropy leaves out."""

PAD = 4


def pad_crop_flip(image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Four zeros (the mean colour, once standardised) on each side, a crop of the old size, mirrored half of the time.

    Source: He et al. 2016, section 4.2, after Lee et al. 2015.
    """
    height, width = image.shape[-2:]
    row, column, mirrored = (whole(most, random) for most in (2 * PAD, 2 * PAD, 1))
    cropped = functional.pad(image, (PAD,) * 4)[..., row : row + height, column : column + width]
    return cropped.flip(-1) if mirrored else cropped.contiguous()


def flip_both(image: torch.Tensor, labels: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and label map, mirrored half of the time."""
    return (image.flip(-1), labels.flip(-1)) if whole(1, random) else (image, labels)


def whole(most: int, random: torch.Generator) -> int:
    """A whole number in 0 .. most, each as likely."""
    return int(torch.randint(most + 1, (), generator=random))


def between(low: float, high: float, random: torch.Generator) -> float:
    """A number in [low, high), uniform."""
    return low + (high - low) * float(torch.rand((), generator=random, dtype=torch.float64))
