"""The quickstart's larger model reaches its accuracy on real images, also with half of its filters masked."""

import torch

from edgeprune import datasets, models
from edgeprune.pruning import prune
from edgeprune.training import FINE_TUNE, FROM_SCRATCH, accuracy, train


def test_resnet20_on_digits_dense_and_pruned():
    digits = datasets.load("digits", (1, 32, 32))
    model = models.build("resnet20", in_channels=1)
    train(model, digits, FROM_SCRATCH)
    assert accuracy(model, digits.test) >= 0.97
    masks = prune(model, torch.zeros(1, 1, 32, 32), ratio=0.5)
    masked = masks.apply(model)
    result = train(masked, digits, FINE_TUNE, masks=masks)
    assert accuracy(masked, digits.validation) == result.validation_accuracy
    assert accuracy(masked, digits.test) >= 0.95
    for name, kept in masks.items():
        assert not masked.get_submodule(name).weight[~kept].any()
