"""What attention's masks allow, those that the example has: whole heads go only where all have one mask."""

from __future__ import annotations

import pytest
import torch
from test_shrinking_attention import CHANNELS, HEADS, Net, exactly, layer, made, rows
from torch import Tensor, nn
from torch.nn import functional as F


class Left(Net):
    """Tokens are left out by their own numbers; some images leave a query no token at all, so that it gets zeros."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.left)

    def forward(self, x: Tensor) -> Tensor:
        self.left = (x[:, :, 0] > 0.0)[:, None, None, :]
        return super().forward(x)


class OfEachHead(Net):
    """A bias of each head's own, such as one for the distance of two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([0.5, 0.25, 0.125]).reshape(1, HEADS, 1, 1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.slopes * v.new_ones(1, 1, 1, 1))


def headless(form: type[Net], *, bias: bool) -> Net:
    network = made(form)
    with torch.no_grad():
        network.qkv.weight[rows(2, 1)] = 0.0
        network.qkv.bias[rows(2, 1)] *= bias
    return network


@pytest.mark.parametrize(("bias", "heads"), [(False, HEADS - 1), (True, HEADS)])
def test_a_query_without_keys_gets_zeros_and_not_the_constant(bias: bool, heads: int) -> None:
    masked, nothing = headless(Left, bias=bias), -torch.ones(2, 7, 6, dtype=torch.float64)
    shrunk = exactly(masked, nothing)
    assert layer(shrunk, "proj").in_features == heads * CHANNELS // HEADS


def test_a_mask_of_each_head_keeps_all_heads() -> None:
    shrunk = exactly(headless(OfEachHead, bias=False))
    assert layer(shrunk, "qkv").out_features == 3 * CHANNELS
