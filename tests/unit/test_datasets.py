"""Datasets: fixed disjoint splits, shapes, standardisation, repeatability."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from edgeprune import datasets
from edgeprune.errors import DatasetError, UnknownNameError


def arrays(split) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = split.tensors
    return images, labels


def test_digits_splits_are_all_images_once_and_stratified():
    digits = datasets.load("digits", (1, 8, 8))
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1257, 180, 360)
    images = torch.cat([arrays(split)[0] for split in (digits.train, digits.validation, digits.test)])
    labels = torch.cat([arrays(split)[1] for split in (digits.train, digits.validation, digits.test)])
    stored = load_digits()
    # undo the standardisation by two known pixels: 0 is the lowest, 16 the highest
    low, high = images.min(), images.max()
    pixels = ((images - low) / (high - low) * 16).round().flatten(1).numpy().astype(int)
    found = sorted((tuple(row), int(label)) for row, label in zip(pixels, labels, strict=True))
    expected = sorted(
        (tuple(row.astype(int)), int(label)) for row, label in zip(stored.data, stored.target, strict=True)
    )
    assert found == expected
    shares = [np.bincount(arrays(split)[1].numpy(), minlength=10) for split in (digits.validation, digits.test)]
    totals = np.bincount(stored.target)
    assert np.abs(shares[0] - totals * 0.1).max() <= 1
    assert np.abs(shares[1] - totals * 0.2).max() <= 1


def test_digits_are_standardised_by_the_training_split():
    digits = datasets.load("digits", (1, 28, 28))
    images, labels = arrays(digits.train)
    assert images.shape == (1257, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1.0, abs=1e-4)
    assert digits.classes == tuple("0123456789")
    image, label = digits.test[0]
    assert image.shape == (1, 28, 28)
    assert int(label) == 0


def test_digits_repeat_grey_to_colour_and_ignore_the_seed():
    grey, colour = datasets.load("digits", (1, 32, 32)), datasets.load("digits", (3, 32, 32), seed=9)
    one, three = arrays(grey.test)[0], arrays(colour.test)[0]
    assert three.shape == (360, 3, 32, 32)
    assert all(torch.equal(three[:, channel], one[:, 0]) for channel in range(3))


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 16, 16)])
def test_synthetic_follows_its_seed_and_shape(shape: tuple[int, int, int]):
    first, again, other = (datasets.load("synthetic", shape, seed=seed) for seed in (3, 3, 4))
    assert arrays(first.train)[0].shape == (1000, *shape)
    assert torch.equal(arrays(first.test)[0], arrays(again.test)[0])
    assert not torch.equal(arrays(first.test)[0], arrays(other.test)[0])
    assert set(arrays(first.test)[1].tolist()) == set(range(10))


def test_synthetic_can_be_learnt():
    made = datasets.load("synthetic", (1, 8, 8))
    images, labels = arrays(made.train)
    targets = nn.functional.one_hot(labels, 10).float()
    weights = torch.linalg.lstsq(images.flatten(1), targets).solution
    images, labels = arrays(made.test)
    assert float(((images.flatten(1) @ weights).argmax(1) == labels).float().mean()) > 0.9


def test_entries_match_what_is_read():
    for name in datasets.names():
        entry = datasets.entry(name)
        if entry.needs_folder:
            continue  # test_dataset_cifar.py and test_dataset_pictures.py make their files
        read = datasets.load(name, (entry.channels, 8, 8))
        assert (read.name, read.num_classes) == (name, entry.num_classes)
        assert len(read.classes) == read.num_classes


def test_mistakes():
    with pytest.raises(UnknownNameError, match="digit") as caught:
        datasets.load("digit", (1, 8, 8))
    assert "did you mean digits?" in caught.value.hint
    for shape in ((1, 0, 8), (1, 8)):
        with pytest.raises(DatasetError, match="shape"):
            datasets.load("digits", shape)
