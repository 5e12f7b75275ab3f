"""The convolutions that are timed with and without their columns give the same numbers."""

from __future__ import annotations

import torch

import edgeprune as ep
from edgeprune.shrinking import largest_difference
from tests.unit.benchmark_scripts import load


def test_gathered_columns_hold_the_share_and_give_the_same_numbers() -> None:
    columns = load("columns")
    image = torch.randn(1, 16, 12, 12)
    site = columns.Site(16, 12, stride=2)
    for layer, left in ((site.gathered(0.35), round(0.35 * 16 * 9)), (site.trimmed(2, 3), 16 * 6)):
        gathered = ep.shrink(layer, image, columns="gather").model
        assert largest_difference(layer, gathered, (image,))[0] <= 1e-5
        assert ep.count(gathered, image).params == 16 * left


def test_break_even_is_read_off_where_the_ratio_crosses_one() -> None:
    columns = load("columns")
    assert columns.break_even([(0.1, 0.25), (0.2, 0.5), (0.6, 1.5)]) == 0.4
    assert columns.break_even([(0.1, 0.25), (0.2, 0.5)]) is None
