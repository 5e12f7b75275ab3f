"""The gradient method finds what is connected, and shrinks to the same networks as the analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from masked_networks import SmallResNet, mask
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ShrinkError
from edgeprune.shrinking.gradient import Connectivity, connectivity
from edgeprune.shrinking.graph import trace


def connect(model: nn.Module, *inputs: Tensor, factors_matter: bool = False) -> tuple[Connectivity, dict[str, list]]:
    network = trace(model.eval(), inputs)
    found = connectivity(network, inputs, factors_matter=factors_matter)
    return found, {node.name: np.flatnonzero(flags).tolist() for node, flags in found.alive.items()}


@torch.no_grad()
def test_dead_ends_are_found_in_both_directions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1))
    net[0].weight[0] = 0.0  # nothing comes in
    net[3].weight[:, 1] = 0.0  # nothing reads it
    net[4].weight[:, 0] = 0.0
    found, alive = connect(net, torch.zeros(1, 1, 5, 5))
    assert found.reached[next(iter(found.reached))].tolist() == [True]
    assert alive == {"input_1": [0], "_0": [2], "_1": [2], "_2": [2], "_3": [1, 2], "_4": [0]}
    assert found.kernels["3"].tolist() == [[False] * 3, [False, False, True], [False, False, True]]


class Gate(nn.Module):
    """A squeeze-and-excitation gate, or a plain product."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.gate, self.activation = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.activation(self.gate(F.adaptive_avg_pool2d(x, 1)))


@pytest.mark.parametrize(
    ("activation", "factors_matter", "left"),
    [(nn.Sigmoid(), False, [0, 1]), (nn.ReLU(), False, [0]), (nn.ReLU(), True, [0, 1])],
    ids=["sigmoid of zero", "zero", "zero or a bias"],
)
def test_a_dead_gate_closes_only_where_it_is_zero(activation: nn.Module, factors_matter: bool, left: list[int]) -> None:
    net = Gate(activation)
    with torch.no_grad():
        net.gate.weight[1] = 0.0
        net.gate.weight[0, 1] = 0.0  # so that channel 1 is only needed as a factor
    _, alive = connect(net, torch.zeros(1, 1, 4, 4), factors_matter=factors_matter)
    assert alive["conv"] == left


def test_deep_networks_neither_overflow_nor_underflow() -> None:
    layers = [nn.Conv2d(32, 32, 3, 1, 1) for _ in range(300)]
    with torch.no_grad():
        for layer in layers[:150]:
            layer.weight[:, 1:] = 0.0
    found, alive = connect(nn.Sequential(*layers), torch.zeros(1, 32, 4, 4))
    assert alive["_0"] == [0]
    assert alive["_299"] == list(range(32))
    assert all(kernels.any() for kernels in found.kernels.values())


def test_a_kernel_counts_as_a_whole_at_any_image_size() -> None:
    net = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        net.weight.zero_()[..., 0, 0] = 1.0  # meets nothing but the border of an image of one pixel
    _, alive = connect(nn.Sequential(net), torch.zeros(1, 1, 1, 1))
    assert alive["_0"] == [0]


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm([4, 5, 5])], ids=["group", "layer"])
def test_normalisations_over_channels_connect_them(norm: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), norm, nn.Conv2d(4, 1, 1))
    with torch.no_grad():
        net[2].weight[:, 1:] = 0.0
    _, alive = connect(net, torch.zeros(1, 1, 5, 5))
    assert alive["_0"] == ([0, 1] if isinstance(norm, nn.GroupNorm) else [0, 1, 2, 3])


def test_attention_needs_all_queries_and_keys_and_gives_the_values_it_has() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x)))

    net = Attention()
    with torch.no_grad():
        net.value.weight[0] = net.query.weight[1] = 0.0
        net.out.weight[:, 1] = 0.0
    _, alive = connect(net, torch.zeros(1, 3, 4))
    assert alive["query"] == [0, 2, 3]
    assert alive["key"] == [0, 1, 2, 3]
    assert alive["value"] == [2, 3]


def test_an_operator_without_a_rule_is_named() -> None:
    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(x, 1)

    with pytest.raises(ShrinkError, match=r"no rule for softmax \(softmax\)$"):
        connect(Soft(), torch.zeros(1, 2))


def test_the_model_is_left_as_it_is() -> None:
    net = mask(SmallResNet(1, 8), 0.5, seed=0, beta=True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    connect(net, torch.zeros(1, 3, 16, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
