"""Each criterion of filters against its formula in numpy, and on a network whose useless filters are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.pruning import prune
from edgeprune.pruning.choosing import counts
from edgeprune.pruning.criteria.context import Network
from edgeprune.pruning.scoring import scores_of
from edgeprune.pruning.sites import find_sites

IMAGE = torch.zeros(1, 2, 6, 6)


class Net(nn.Module):
    """Two convolutions, the second with batch-norm, pooling, and two linear layers."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 5, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(5)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(5 * 9, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        scores: torch.Tensor = self.head(torch.relu(self.hidden(x.view(x.size(0), -1))))
        return scores


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    made = Net()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, 0.0, 0.5)
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return made.eval()


def batches(count: int = 3, size: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(11)
    return [(torch.randn(size, 2, 6, 6), torch.randint(3, (size,))) for _ in range(count)]


def scores(model: nn.Module, method: str, data: object = None, **options: int) -> dict[str, np.ndarray]:
    network = Network(method, model, find_sites(model), (IMAGE,), data, torch.Generator())
    return {layer: one.numpy() for layer, one in scores_of(network, options).items()}


def weight(model: nn.Module, layer: str) -> np.ndarray:
    return model.get_parameter(f"{layer}.weight").detach().numpy().astype(np.float64)


def maps_of(model: Net, images: torch.Tensor) -> dict[str, np.ndarray]:
    """What leaves the activation behind each layer, computed step by step."""
    with torch.no_grad():
        first = torch.relu(model.bn1(model.conv1(images)))
        second = torch.relu(model.bn2(model.conv2(first)))
        hidden = torch.relu(model.hidden(model.pool(second).flatten(1)))
    return {name: one.numpy().astype(np.float64) for name, one in
            {"conv1": first, "conv2": second, "hidden": hidden}.items()}  # fmt: skip


def test_fpgm_sums_the_distances_to_all_filters() -> None:
    model = net()
    found = scores(model, "fpgm")
    for layer in ("conv1", "conv2", "hidden"):
        filters = weight(model, layer).reshape(len(found[layer]), -1)
        expected = [sum(np.sqrt(((one - other) ** 2).sum()) for other in filters) for one in filters]
        np.testing.assert_allclose(found[layer], expected, rtol=1e-12)


def test_bn_is_the_scale_behind_the_filter() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.3, -2.0, 0.0, 1.0]))
    np.testing.assert_allclose(scores(model, "bn")["0"], [0.3, 2.0, 0.0, 1.0], rtol=1e-7)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_cop_correlates_channels_by_the_weights_that_read_them(neighbours: int) -> None:
    model = net()
    found = scores(model, "cop", neighbours=neighbours)
    for layer, reader in (("conv1", "conv2"), ("conv2", "hidden"), ("hidden", "head")):
        channels = len(found[layer])
        read = weight(model, reader).reshape(len(weight(model, reader)), channels, -1)
        together = np.zeros((channels, channels))
        for place in range(read.shape[2]):
            for one in range(channels):
                for other in range(channels):
                    x, y = read[:, one, place], read[:, other, place]
                    top = ((x - x.mean()) * (y - y.mean())).sum()
                    bottom = np.sqrt(((x - x.mean()) ** 2).sum() * ((y - y.mean()) ** 2).sum())
                    together[one, other] += abs(top / bottom) / read.shape[2]
        np.fill_diagonal(together, 0.0)
        closest = np.sort(together / together.max(), axis=1)[:, -neighbours:]
        np.testing.assert_allclose(found[layer], 1 - closest.mean(1), rtol=1e-9)


def test_taylor_is_the_mean_gradient_times_map_of_each_image() -> None:
    model, data = net(), batches()
    expected = {layer: np.zeros(width) for layer, width in (("conv1", 6), ("conv2", 5), ("hidden", 7))}
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            # the gradient by differences: the loss of the network from each map on, in double
            for layer, value in maps_of(model, image[None]).items():
                gradient = differences(model, layer, value, int(label))
                product = (gradient * value)[0]
                expected[layer] += np.abs(product.reshape(len(product), -1).mean(1)) / 12
    found = scores(model, "taylor", data)
    for layer in expected:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=2e-3, atol=1e-6)


def differences(model: Net, layer: str, value: np.ndarray, label: int) -> np.ndarray:
    def loss(given: np.ndarray) -> float:
        x = given
        if layer == "conv1":
            with torch.no_grad():
                x = torch.relu(double.bn2(double.conv2(torch.from_numpy(x)))).numpy()
        if layer != "hidden":
            pooled = x.reshape(1, 5, 3, 2, 3, 2).max((3, 5)).reshape(1, -1)
            x = np.maximum(pooled @ weight(model, "hidden").T + model.hidden.bias.detach().numpy(), 0.0)
        out = (x @ weight(model, "head").T + model.head.bias.detach().numpy())[0]
        return float(np.log(np.exp(out).sum()) - out[label])

    torch.manual_seed(0)
    double = net().double()
    gradient, step = np.zeros_like(value), 1e-6
    for place in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (loss(up) - loss(down)) / (2 * step)
    return gradient


def test_hrank_is_the_mean_rank_of_the_maps() -> None:
    model, data = net(), batches()
    expected = {"conv1": np.zeros(6), "conv2": np.zeros(5), "hidden": np.zeros(7)}
    for images, _ in data:
        for layer, value in maps_of(model, images).items():
            planes = value if value.ndim == 4 else value[:, :, None, None]
            for image in planes:
                expected[layer] += [np.linalg.matrix_rank(plane.astype(np.float32)) / 12 for plane in image]
    found = scores(model, "hrank", data)
    for layer in expected:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-12)


def test_fma_lets_the_more_redundant_of_each_pair_go() -> None:
    model, data = net(), batches()
    images = torch.cat([one for one, _ in data])
    found = scores(model, "fma", data)
    for layer, value in maps_of(model, images).items():
        samples = value.swapaxes(0, 1).reshape(value.shape[1], -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations = np.nan_to_num(np.abs(np.corrcoef(samples)), nan=1.0)
        correlations = np.triu(correlations) + np.triu(correlations, 1).T
        staying, expected = list(range(len(samples))), np.ones(len(samples))
        while len(staying) > 1:
            pairs = [(correlations[a, b], a, b) for a in staying for b in staying if a < b]
            most, a, b = max(pairs)
            rest = {one: sum(correlations[one, other] for other in staying if other != one) for one in (a, b)}
            leaving = max(rest, key=lambda one: rest[one])
            expected[leaving] = 1 - most
            staying.remove(leaving)
        np.testing.assert_allclose(found[layer], expected, atol=1e-6)


def test_nisp_multiplies_by_absolute_weights_from_the_end() -> None:
    model = net()
    found = scores(model, "nisp")
    head, hidden, conv2 = (np.abs(weight(model, layer)) for layer in ("head", "hidden", "conv2"))
    expected_hidden = head.sum(0)
    flat = (hidden.T @ expected_hidden).reshape(5, 3, 3)
    # every pixel of a pooling window may be its largest
    pixels = flat.repeat(2, axis=1).repeat(2, axis=2)
    scale = {bn: np.abs(weight(model, bn)) / np.sqrt(getattr(model, bn).running_var.numpy() + 1e-5)
             for bn in ("bn1", "bn2")}  # fmt: skip
    through = scale["bn2"][:, None, None] * pixels
    before = np.zeros((6, 8, 8))
    for out, y, x in np.ndindex(5, 6, 6):
        before[:, y : y + 3, x : x + 3] += through[out, y, x] * conv2[out]
    expected_conv1 = scale["bn1"] * before[:, 1:-1, 1:-1].sum((1, 2))
    np.testing.assert_allclose(found["hidden"], expected_hidden, rtol=1e-6)
    np.testing.assert_allclose(found["conv2"], through.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["conv1"], expected_conv1, rtol=1e-5)


# --- planted: filters that are known to be useless ----------------------------------------------------------------


def dead(model: Net, layer: str, gone: list[int]) -> None:
    """Nothing comes out of these filters."""
    for name in (layer, "bn" + layer[-1]):
        model.get_parameter(f"{name}.weight")[gone] = 0.0
        model.get_parameter(f"{name}.bias")[gone] = 0.0


def unread(model: Net, layer: str, gone: list[int]) -> None:
    """Nothing reads these filters."""
    model.get_parameter({"conv1": "conv2", "conv2": "hidden"}[layer] + ".weight").view(
        5 if layer == "conv1" else 7, 6 if layer == "conv1" else 5, -1
    )[:, gone] = 0.0


def repeated(model: Net, layer: str, gone: list[int]) -> None:
    """These filters repeat others, up to scale."""
    bn, norm = model.get_submodule("bn" + layer[-1]), layer
    for one in gone:
        other = (one + 2) % len(bn.weight)
        for name in (f"{norm}.weight", f"{norm}.bias"):
            model.get_parameter(name)[one] = model.get_parameter(name)[other]
        for part in (bn.running_mean, bn.running_var):
            part[one] = part[other]
        bn.weight[one], bn.bias[one] = 0.9 * bn.weight[other], 0.9 * bn.bias[other]


def central(model: Net, layer: str, gone: list[int]) -> None:
    """These filters lie amid the others."""
    filters = model.get_parameter(f"{layer}.weight")
    rest = [one for one in range(len(filters)) if one not in gone]
    for one in gone:
        filters[one] = filters[rest].mean(0) + 0.01 * torch.randn_like(filters[one])


def read_alike(model: Net, layer: str, gone: list[int]) -> None:
    """Channels that are read as their partner is."""
    reader = model.get_parameter({"conv1": "conv2", "conv2": "hidden"}[layer] + ".weight")
    channels = reader.view(5 if layer == "conv1" else 7, 6 if layer == "conv1" else 5, -1)
    channels[:, gone[0]] = 2.0 * channels[:, gone[1]]


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
@pytest.mark.parametrize(
    ("method", "plant"),
    [("l1", dead), ("l2", dead), ("bn", dead), ("taylor", dead), ("taylor", unread), ("hrank", dead), ("fma", dead),
     ("nisp", dead), ("nisp", unread), ("fpgm", central), ("cop", read_alike)],
)  # fmt: skip
def test_planted_filters_are_the_ones_that_go(method: str, plant: Callable[..., None], layer: str) -> None:
    model, gone = net(3), [1, 4]
    with torch.no_grad():
        plant(model, layer, gone)
    options = {"neighbours": 1} if method == "cop" else {}
    masks = prune(model, IMAGE, method, {layer: 2 / 5 if layer == "conv2" else 1 / 3}, data=batches(), **options)
    assert (~masks[layer]).nonzero().flatten().tolist() == gone


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_fma_takes_one_of_each_repeated_pair(layer: str) -> None:
    model = net(5)
    with torch.no_grad():
        repeated(model, layer, [0, 1])  # of 2 and 3
    masks = prune(model, IMAGE, "fma", {layer: 2 / 5 if layer == "conv2" else 1 / 3}, data=batches())
    kept = masks[layer].tolist()
    assert [kept[0] + kept[2], kept[1] + kept[3]] == [1, 1]


def test_masks_carry_what_was_asked() -> None:
    masks = prune(net(), IMAGE, "cop", {"conv2": 0.4}, neighbours=2)
    assert masks.facts["options"] == {"neighbours": 2}
    assert masks.facts["ratio"] == {"conv2": 0.4}
    assert {layer: int((~masks[layer]).sum()) for layer in masks} == {
        "conv1": 0, "bn1": 0, "conv2": 2, "bn2": 2, "hidden": 0,
    }  # fmt: skip


def test_counts_of_layers() -> None:
    assert counts({"a": 10, "b": 3}, 0.99) == {"a": 9, "b": 2}
    assert counts({"a": 10, "b": 3}, {"b": 0.5}) == {"a": 0, "b": 2}
