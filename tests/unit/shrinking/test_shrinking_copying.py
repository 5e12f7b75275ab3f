"""Private copies and the shrunk network's own tensors: whatever happens to them, the user's model stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from masked_networks import SmallResNet, lenet, mask
from torch import nn
from torch.nn.utils import prune

from edgeprune.errors import WeightsError
from edgeprune.shrinking import shrink
from edgeprune.shrinking.copying import bare_twin, duplicate, private_copy
from edgeprune.shrinking.shapes import shapes_of
from edgeprune.shrinking.tracing import symbolic_trace

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Everything(nn.Module):
    """Layers that no operator rebuilds, a tied and a bare parameter, a counter, and references across the tree."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.twin = nn.Conv2d(3, 8, 3, padding=1)
        self.twin.weight = self.conv.weight
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.register_buffer("calls", torch.zeros(1))
        self.layers = [self.conv, self.norm]  # no submodules: a plain list
        self.empty = nn.Sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.empty(self.norm(self.layers[0](x)) * self.scale + self.twin(x) + self.calls * 0)


def test_duplicates_are_what_deepcopy_makes() -> None:
    model = Everything()
    one, other = duplicate(model, {}), copy.deepcopy(model)
    assert [name for name, _ in one.named_modules()] == [name for name, _ in other.named_modules()]
    assert vars(one).keys() == vars(other).keys()
    assert one.layers == [one.conv, one.norm]
    assert one.twin.weight is one.conv.weight
    for (name, tensor), original in zip(one.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, original), name
        assert tensor.data_ptr() != original.data_ptr(), name


def test_a_bare_twin_has_settings_and_no_hooks() -> None:
    conv = nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2, padding_mode="reflect")
    conv.register_forward_hook(lambda *_: None)
    twin = bare_twin(conv)
    assert repr(twin) == repr(conv)
    assert not twin._forward_hooks
    twin.weight = nn.Parameter(torch.zeros(1))
    assert conv.weight.shape == (6, 2, 3, 1)


def test_the_users_model_is_not_written() -> None:
    model = mask(Everything(), 0.5, seed=0, beta=True)
    before = copy.deepcopy(model.state_dict())
    shrunk = shrink(model, IMAGES).model
    with torch.no_grad():
        for tensor in (*shrunk.parameters(), *shrunk.buffers()):
            tensor.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_pruning_hooks_stay_on_the_users_model() -> None:
    model = lenet().eval()
    prune.ln_structured(model[0], "weight", amount=2, n=2, dim=0)
    original = model[0].weight_orig.detach().clone()
    twin = private_copy(model)
    assert torch.equal(model[0].weight_orig, original)
    assert prune.is_pruned(model[0])
    assert not prune.is_pruned(twin[0])
    assert torch.equal(twin[0].weight, model[0].weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_weight_is_found_and_named(value: float) -> None:
    model = SmallResNet()
    with torch.no_grad():
        model.blocks[1].conv2.weight[3, 2, 1, 0] = value
    with pytest.raises(WeightsError, match=r"blocks\.1\.conv2\.weight"):
        private_copy(model)


def test_large_weights_and_infinite_buffers_are_no_fault() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_buffer("mask", torch.tensor([0.0, -float("inf"), float("inf")]))
    with torch.no_grad():
        model[0].weight.fill_(3e38)  # their sum is infinite
    assert private_copy(model)[0].weight is model[0].weight


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_shapes_are_those_of_a_run(shortcut: str) -> None:
    traced = symbolic_trace(private_copy(SmallResNet(shortcut=shortcut)), 1)
    shapes = shapes_of(traced, (IMAGES,))
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, args, output, name=name: seen.update({name: output.shape}))
        for name, module in traced.model.named_modules()
    ]
    with torch.no_grad():
        traced.model(IMAGES)
    for hook in hooks:
        hook.remove()
    modules = {str(node.target): shape for node, shape in shapes.items() if node.op == "call_module"}
    assert modules == {name: seen[name] for name in modules}


def test_shapes_that_depend_on_values_are_those_of_a_run() -> None:
    class Positive(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nonzero(x > 0)

    x = torch.tensor([[1.0, -1.0, 2.0]])
    assert [shape for shape in shapes_of(symbolic_trace(Positive(), 1), (x,)).values() if shape][-1] == (2, 2)
