"""Batches of a split, in any order, augmented if it knows how, read by several processes if that is of use.

Start with `training_batches`. What a batch holds depends on the order and the random stream alone, never on how many
processes made it: each image's seed is drawn here, before it is sent to whoever makes the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torch.utils.data import Dataset as TorchDataset

from edgeprune.errors import EdgepruneError

Split = TorchDataset[tuple[torch.Tensor, ...]]
Batch = tuple[torch.Tensor, torch.Tensor]
MOST_WORKERS = 4
_NO_SEED = -1


def training_batches(
    split: Split, order: Sequence[torch.Tensor], shift: int, random: torch.Generator, reads_files: bool
) -> Iterator[Batch]:
    """Images float32 [N, C, H, W] and labels, a batch for each tensor of places in `order`.

    Images of a split that cannot augment itself are moved by up to `shift` pixels.
    """
    if not hasattr(split, "augmented"):
        for images, labels in _plain(split, order, reads_files):
            yield (shift_images(images, shift, random) if labels.dim() == 1 else images), labels
        return
    seeds = [torch.randint(2**62, (len(places),), generator=random).tolist() for places in order]
    wanted = [list(zip(places.tolist(), some, strict=True)) for places, some in zip(order, seeds, strict=True)]
    yield from _made(split, wanted, workers(reads_files))


def evaluation_batches(split: Split, size: int, reads_files: bool) -> Iterator[Batch]:
    """The whole split in its own order, nothing changed."""
    count = len(split)  # type: ignore[arg-type]
    yield from _plain(split, torch.split(torch.arange(count), size), reads_files)


def workers(reads_files: bool) -> int:
    """How many processes read files: one for each further core that this process may use, four at most."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1) if reads_files else 0


def shift_images(images: torch.Tensor, most: int, random: torch.Generator) -> torch.Tensor:
    """Move each image of [N, C, H, W] by its own whole number of pixels in -most .. most, edges repeated."""
    if most == 0:
        return images
    count, _, height, width = images.shape
    offsets = torch.randint(-most, most + 1, (2, count, 1), generator=random)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    which = torch.arange(count).view(-1, 1, 1)
    # indices on both sides of the channel slice put the channels last
    return images[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _plain(split: Split, order: Sequence[torch.Tensor], reads_files: bool) -> Iterator[Batch]:
    if isinstance(split, TensorDataset):
        for places in order:
            yield split.tensors[0][places], split.tensors[1][places]
        return
    wanted = [[(place, _NO_SEED) for place in places.tolist()] for places in order]
    yield from _made(split, wanted, workers(reads_files))


def _made(split: Split, wanted: list[list[tuple[int, int]]], processes: int) -> Iterator[Batch]:
    # a generator of its own: else the loader would draw from the caller's random numbers
    loader = DataLoader(
        _Items(split), batch_sampler=wanted, num_workers=processes, collate_fn=_collated, generator=torch.Generator()
    )
    for made in loader:
        if isinstance(made, EdgepruneError):
            raise made
        yield made[0], made[1]


class _Items(TorchDataset[Any]):
    """Items by place and seed; an error is an item too, since the loader would wrap it in another's words."""

    def __init__(self, split: Split) -> None:
        self.split: Any = split

    def __getitem__(self, wanted: tuple[int, int]) -> Any:
        place, seed = wanted
        try:
            return self.split[place] if seed == _NO_SEED else self.split.augmented(place, seed)
        except EdgepruneError as error:
            return error


def _collated(items: list[Any]) -> Any:
    failed = [item for item in items if isinstance(item, EdgepruneError)]
    return failed[0] if failed else default_collate(items)
