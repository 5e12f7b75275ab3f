"""Picture files as tensors. Start with `open_picture`. Pillow reads them; it is installed with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgeprune.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as fractions of 255: what published weights were trained with."""


def open_picture(path: Path, mode: str) -> Image:
    """A picture, read to its end, as "RGB" or, if it holds numbers instead of colours, as it is ("").

    Raises:
        DatasetError: it is missing, damaged, cut short or larger than any picture should be; the message names it.
    """
    from PIL import Image, UnidentifiedImageError

    unreadable = (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError)
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened.convert(mode) if mode and opened.mode != mode else opened.copy()
    except unreadable as error:
        raise DatasetError(
            f"{path}: not a readable picture: {error}", hint="fetch the file again, or remove it from the folder"
        ) from error


def standardised(picture: Image, channels: int) -> torch.Tensor:
    """float32 [channels, H, W] of a picture in RGB; of any other number than 3 channels they are all grey."""
    if channels != 3:
        picture = picture.convert("L").convert("RGB")
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)
    image = (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(DEVIATION).view(-1, 1, 1)
    return image.contiguous() if channels == 3 else image.mean(0, keepdim=True).expand(channels, -1, -1).contiguous()
