"""Attention loses whole heads, and the places of its heads that add nothing, and gives the same numbers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.shrinking import Shrunk, largest_difference, load_shrunk, shrink

HEADS, WIDTH = 3, 4
CHANNELS = HEADS * WIDTH
TOKENS = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """One linear layer, attention of three heads of four channels, and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(6, CHANNELS)
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.proj = nn.Linear(CHANNELS, 5)
        self.scale = WIDTH**-0.5
        self.drop = nn.Dropout(0.1)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        images, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(images, tokens, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        images, tokens, channels = x.shape
        return self.proj(self.attend(*self.heads(x)).transpose(1, 2).reshape(images, tokens, channels))


class WrittenOut(Net):
    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        packed = self.qkv(x).view(x.shape[0], -1, 3, HEADS, x.shape[-1] // HEADS).permute(2, 0, 3, 1, 4)
        return packed[0], packed[1], packed[2]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q * self.scale) @ k.transpose(-2, -1)
        return self.drop(weights.softmax(dim=-1)) @ v


class Apart(Net):
    """Queries, keys and values are parts of one layer, each with a view of its own; the heads are flattened."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (part.view(x.shape[0], x.shape[1], HEADS, WIDTH).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(torch.matmul(q, k.permute(0, 1, 3, 2)) / 3.0, -1)
        return torch.matmul(weights, v)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(*self.heads(self.before(x))).permute(0, 2, 1, 3).contiguous().flatten(2))


class KeysAreValues(Apart):
    """Two views of one tensor."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        made = self.qkv(x)
        q, k = made[..., :CHANNELS], made[..., CHANNELS : 2 * CHANNELS]
        q, k, v = (part.view(x.shape[0], x.shape[1], HEADS, WIDTH).transpose(1, 2) for part in (q, k, k))
        return q, k, v


class Crossed(Net):
    """Keys and values come from other tokens, and from layers that are traced after the queries are viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.keys = nn.Linear(CHANNELS, CHANNELS), nn.Linear(6, 2 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        q = self.qkv(self.before(x))
        q = q.view(q.shape[0], q.shape[1], HEADS, WIDTH).transpose(1, 2)
        k, v = self.keys(x[:, :3]).split(CHANNELS, -1)
        k, v = (part.reshape(part.shape[0], -1, HEADS, WIDTH).transpose(1, 2) for part in (k, v))
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class Hooked(Net):
    """The packed layer is left alone, the heads are not."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv.register_forward_hook(lambda layer, given, made: made)


class Normed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=True, scale=0.3)


FORMS = (Net, WrittenOut, Apart, Normed)


def made(form: type[Net]) -> Net:
    torch.manual_seed(1)
    network = form().double().eval()
    with torch.no_grad():
        for layer in (network.before, network.qkv, network.proj):
            layer.weight.normal_()
            layer.bias.normal_()
    return network


def rows(part: int, head: int, places: slice | list[int] = slice(None)) -> Tensor:
    """Channels of the packed layer: of its queries (0), keys (1) or values (2)."""
    return torch.arange(3 * CHANNELS).reshape(3, HEADS, WIDTH)[part, head, places].reshape(-1)


def exactly(masked: nn.Module, *others: Tensor) -> Shrunk:
    """The shrunk network, which gives the same numbers for two samples, for one, and for more tokens."""
    shrunk = shrink(masked, TOKENS)
    for x in (TOKENS, TOKENS[:1], torch.cat([TOKENS, TOKENS.flip(2)], 1), *others):
        assert largest_difference(masked, shrunk.model, (x,))[0] < 1e-12
    return shrunk


def layer(shrunk: Shrunk, name: str) -> nn.Linear:
    found = shrunk.model.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


@pytest.mark.parametrize("form", [*FORMS, KeysAreValues, Crossed, Hooked])
@pytest.mark.parametrize("biases", [False, True], ids=["A", "B"])
@pytest.mark.parametrize("seed", range(3))
def test_random_masks_are_exact(form: type[Net], biases: bool, seed: int) -> None:
    network, generator = made(form), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for linear in (network.before, network.qkv, getattr(network, "keys", network.qkv)):
            dead = torch.rand(linear.out_features, generator=generator) < 0.5
            linear.weight[dead] = 0.0
            linear.bias[dead] *= biases
        network.proj.weight[:, torch.rand(CHANNELS, generator=generator) < 0.3] = 0.0
    shrunk = exactly(network)
    assert shrunk.report.unknown == (("qkv (Linear)",) if form is Hooked else ())
    assert shrunk.report.params_after < sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", ["values", "constant values", "readers"])
def test_a_head_goes_whole(form: type[Net], by: str) -> None:
    network = made(form)
    with torch.no_grad():
        if by == "readers":
            network.proj.weight[:, WIDTH : 2 * WIDTH] = 0.0
        else:
            network.qkv.weight[rows(2, 1)] = 0.0
            network.qkv.bias[rows(2, 1)] *= by != "values"
    shrunk = exactly(network)
    assert layer(shrunk, "qkv").out_features == 3 * 2 * WIDTH
    assert layer(shrunk, "proj").in_features == 2 * WIDTH
    assert layer(shrunk, "before").out_features == CHANNELS


@pytest.mark.parametrize("form", [Net, WrittenOut, Apart])
def test_places_of_heads_go_as_far_as_all_heads_allow(form: type[Net]) -> None:
    network = made(form)
    with torch.no_grad():
        for head, dead in enumerate(([0, 1, 2], [1, 2], [2, 3])):  # two places go from each
            network.qkv.weight[rows(0, head, dead[:1])] = 0.0  # zero queries
            network.qkv.bias[rows(0, head, dead[:1])] = 0.0
            network.qkv.weight[rows(1, head, dead[1:])] = 0.0  # constant keys: softmax takes them off
            network.qkv.weight[rows(2, head, [head])] = 0.0  # one constant value each
    shrunk = exactly(network)
    assert layer(shrunk, "qkv").out_features == HEADS * (2 + 2 + 3)
    assert layer(shrunk, "proj").in_features == HEADS * 3


def test_constant_queries_stay_and_constant_keys_go() -> None:
    network = made(Net)
    with torch.no_grad():
        for head in range(HEADS):
            network.qkv.weight[rows(0, head, [0])] = 0.0
    assert layer(exactly(network), "qkv").out_features == 3 * CHANNELS
    with torch.no_grad():
        for head in range(HEADS):
            network.qkv.weight[rows(1, head)] = 0.0  # every token is given the mean of all
    assert layer(exactly(network), "qkv").out_features == HEADS * (1 + 1 + WIDTH)


def test_normalised_queries_keep_all_places_of_the_heads_that_are_left() -> None:
    network = made(Normed)
    with torch.no_grad():
        network.qkv.weight[rows(0, 0, [1])] = network.qkv.weight[rows(1, 2, [3])] = 0.0
        network.qkv.weight[rows(2, 1)] = 0.0
        network.proj.weight[:, [0, 2 * WIDTH]] = 0.0
    shrunk = exactly(network)
    assert layer(shrunk, "qkv").out_features == 2 * (WIDTH + WIDTH + WIDTH - 1)
    assert shrunk.model.get_parameter("q_norm.weight").shape == (WIDTH,)


def test_without_any_head_the_answer_is_a_constant() -> None:
    network = made(Net)
    with torch.no_grad():
        network.qkv.weight[2 * CHANNELS :] = 0.0
    shrunk = exactly(network)
    assert shrunk.report.params_after < network.proj.weight.numel() + 30


class WithMask(Net):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=q[..., 0].unsqueeze(-1))


class ReadTwice(Net):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v) + q


class OverHeads(Net):
    """Softmax over the queries, so that the weights of a query do not sum to one."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)).softmax(dim=-2) @ v


class Shifted(Net):
    """What is added to the products is not the same for all keys."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (torch.tanh(q @ k.transpose(-2, -1))).softmax(dim=-1) @ v


class Swapped(Net):
    """Joins tokens where others join heads."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.proj(self.attend(*self.heads(x)).reshape(x.shape[0], x.shape[1], CHANNELS))


@pytest.mark.parametrize("form", [WithMask, ReadTwice, OverHeads, Shifted, Swapped])
def test_what_only_looks_like_attention_stays_whole(form: type[Net]) -> None:
    network = made(form)
    with torch.no_grad():
        network.qkv.weight[rows(2, 1)] = 0.0
        network.qkv.weight[rows(0, 0)] = 0.0
        network.qkv.weight[rows(1, 2)] = 0.0
    shrunk = exactly(network)
    assert layer(shrunk, "qkv").out_features == 3 * CHANNELS
    assert shrunk.report.unknown != ()


@pytest.fixture(scope="module")
def uneven() -> Shrunk:
    """A network whose queries and values differ in width, in float32."""
    network = made(Net).float()
    with torch.no_grad():
        network.qkv.weight[torch.cat([rows(1, head, [3]) for head in range(HEADS)])] = 0.0
        network.qkv.weight[rows(2, 1)] = 0.0
    return shrink(network, TOKENS.float())


def test_attention_trains(uneven: Shrunk) -> None:
    model = copy.deepcopy(uneven.model).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(TOKENS.float()).square().mean().backward()
    optimiser.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_attention_exports(uneven: Shrunk, tmp_path: Path, dynamo: bool) -> None:
    path, x = tmp_path / "net.onnx", TOKENS.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(copy.deepcopy(uneven.model), (x,), str(path), dynamo=dynamo, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = uneven.model(x).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_attention_is_saved(uneven: Shrunk, tmp_path: Path) -> None:
    files = uneven.save(tmp_path / "net")
    assert files.needs_code == ()
    with torch.no_grad():
        assert torch.equal(load_shrunk(tmp_path / "net")(TOKENS.float()), uneven.model(TOKENS.float()))
    again = shrink(uneven.model, TOKENS.float())
    assert again.report.params_after == uneven.report.params_after
    assert again.report.unknown == ()
