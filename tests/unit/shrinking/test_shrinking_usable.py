"""A shrunk network is an ordinary module: it trains, exports, is saved and counted, and says what was done to it."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from masked_networks import RandomNetwork, SmallResNet, lenet, mask, mask_randomly
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

from edgeprune.errors import ModelError, TraceError, UnknownNameError, UserError, WeightsError
from edgeprune.shrinking import IndexAdd, shrink
from edgeprune.shrinking.operators.kernels import Kernels

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def masked() -> nn.Module:
    return mask(SmallResNet(depth=2, shortcut="pad"), 0.5, seed=0, beta=True)


@pytest.fixture(scope="module")
def shrunk(masked: nn.Module) -> nn.Module:
    return shrink(masked, IMAGES).model


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_exports_to_onnx(shrunk: nn.Module, tmp_path: Path, dynamo: bool) -> None:
    path = tmp_path / "shrunk.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(copy.deepcopy(shrunk), (IMAGES,), str(path), dynamo=dynamo, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    with torch.no_grad():
        expected = shrunk(IMAGES).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_goes_through_torch_export_and_jit_trace(shrunk: nn.Module) -> None:
    with torch.no_grad():
        expected = shrunk(IMAGES)
        assert torch.equal(torch.export.export(shrunk, (IMAGES,)).module()(IMAGES), expected)
        assert torch.equal(torch.jit.trace(shrunk, IMAGES)(IMAGES), expected)


def test_is_copied_and_pickled_and_keeps_the_names_of_parameters(masked: nn.Module, shrunk: nn.Module) -> None:
    with torch.no_grad():
        expected = shrunk(IMAGES)
        assert torch.equal(copy.deepcopy(shrunk)(IMAGES), expected)
        assert torch.equal(pickle.loads(pickle.dumps(shrunk))(IMAGES), expected)  # noqa: S301
    assert {name for name, _ in shrunk.named_parameters()} <= {name for name, _ in masked.named_parameters()}


def test_is_counted_by_fvcore(masked: nn.Module, shrunk: nn.Module) -> None:
    small = FlopCountAnalysis(shrunk, IMAGES).unsupported_ops_warnings(False).by_operator()["conv"]
    large = FlopCountAnalysis(masked, IMAGES).unsupported_ops_warnings(False).by_operator()["conv"]
    assert small < 0.6 * large


def test_layers_say_their_true_widths(shrunk: nn.Module) -> None:
    for module in shrunk.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)
        elif isinstance(module, nn.BatchNorm2d):
            assert len(module.running_mean) == module.num_features


@pytest.mark.parametrize("beta", [False, True], ids=["A", "B"])
def test_trains(beta: bool) -> None:
    model = shrink(mask(SmallResNet(), 0.5, seed=1, beta=beta), IMAGES).model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(IMAGES), torch.tensor([1, 2])).backward()
    optimiser.step()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert not torch.equal(parameter, before[name]), name


def test_frozen_parameters_stay_frozen() -> None:
    network = mask(lenet(), 0.5, seed=0, beta=True)
    network[0].weight.requires_grad_(False)
    model = shrink(network, torch.zeros(1, 1, 28, 28)).model
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.weight"]


def test_report_says_what_went_and_why(masked: nn.Module) -> None:
    result = shrink(masked, IMAGES)
    report = result.report
    assert report.changed
    assert report.params_after == sum(p.numel() for p in result.model.parameters())
    assert report.params_before == sum(p.numel() for p in masked.parameters())
    rows = {row.layer: row for row in report.layers}
    conv = masked.get_submodule("conv")
    dead = int((~(conv.weight != 0).flatten(1).any(1)).sum())
    kept = result.model.get_submodule("conv").out_channels
    assert (rows["conv"].out_before, rows["conv"].out_after) == (8, kept)
    assert f"{8 - kept} outputs removed: dead filter" in rows["conv"].notes
    assert kept - (8 - dead) in (0, 1)
    assert list(report.index_additions) == [n for n, m in result.model.named_modules() if isinstance(m, IndexAdd)]
    assert "blocks.0.conv1 Conv2d 8x8" in str(report)


@pytest.mark.parametrize("seed", range(20))
def test_report_counts_every_removed_channel_once(seed: int) -> None:
    network = mask_randomly(RandomNetwork(seed), seed)
    rows = shrink(network, torch.zeros(1, network.inputs, network.size, network.size).double()).report.layers
    convolutions = [row for row in rows if "Conv" in row.op or row.op == "Linear"]
    assert convolutions
    for row in convolutions:
        noted = [(int(note.split()[0]), note) for note in row.notes if " removed: " in note]
        assert sum(count for count, note in noted if "inputs" in note) == row.in_before - row.in_after, row
        assert sum(count for count, note in noted if "outputs" in note) == row.out_before - row.out_after, row


def test_report_of_a_layer_that_reads_few_channels() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.left(x) + self.right(x)

    network = Fork().eval()
    with torch.no_grad():
        network.left.weight[:, :4] = 0.0
    row = next(row for row in shrink(network, IMAGES).report.layers if row.layer == "left")
    assert (row.in_before, row.in_after, row.notes) == (8, 4, ("4 inputs removed: not connected",))


def test_no_zero_filter_gives_an_equal_model_and_says_so() -> None:
    network = mask(SmallResNet(), 0.0, seed=0, beta=True)
    result = shrink(network, IMAGES)
    assert not result.report.changed
    assert "nothing to remove" in str(result.report)
    assert result.model.state_dict().keys() == network.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(result.model(IMAGES), network(IMAGES))


def test_shrinking_twice_changes_nothing_more(shrunk: nn.Module) -> None:
    again = shrink(shrunk, IMAGES).model
    with torch.no_grad():
        assert torch.allclose(again(IMAGES), shrunk(IMAGES), rtol=0, atol=1e-6)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in shrunk.parameters())


def test_unknown_operators_are_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(3), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        network[0].weight[:3] = 0.0
    result = shrink(network, IMAGES)
    assert result.report.unknown == ("1 (LocalResponseNorm)",)
    assert result.model.get_submodule("0").out_channels == 6


def test_masks_of_torch_prune_and_parametrizations_are_read() -> None:
    class Half(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * (torch.arange(len(weight)) % 2).reshape(-1, 1, 1, 1)

    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    prune.ln_structured(network[0], "weight", amount=2, n=2, dim=0)
    parametrize.register_parametrization(network[2], "weight", Half())
    model = shrink(network, IMAGES).model
    assert [model.get_submodule(name).out_channels for name in ("0", "2")] == [4, 4]
    with torch.no_grad():
        assert torch.allclose(model(IMAGES), network(IMAGES), atol=1e-6)


def test_a_parametrization_of_several_tensors_is_read() -> None:
    network = nn.Sequential(weight_norm(nn.Conv2d(3, 6, 3)), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        network[0].parametrizations.weight.original0[:4] = 0.0
    model = shrink(network, IMAGES).model
    assert isinstance(model.get_parameter("0.weight"), nn.Parameter)
    with torch.no_grad():
        assert torch.allclose(model(IMAGES), network(IMAGES), atol=1e-6)
    assert model.get_submodule("0").out_channels == 2


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_a_grouped_transposed_convolution_is_reported(groups: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 12, 3, groups=groups), nn.Conv2d(12, 2, 1)
    ).eval()
    with torch.no_grad():
        network[0].weight[:3] = 0.0
        network[2].weight[:, :1] = 0.0
    for align in (None, 8):
        result = shrink(network, IMAGES, align=align)
        assert [row.layer for row in result.report.layers] == ["0", "2", "3"]
        with torch.no_grad():
            assert torch.allclose(result.model(IMAGES), network(IMAGES), atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_kernels_of_a_transposed_convolution_have_outputs_first(groups: int) -> None:
    layer = nn.ConvTranspose2d(6, 12, 1, groups=groups, bias=False)
    with torch.no_grad():
        dense = torch.stack([layer(one.reshape(1, 6, 1, 1)).flatten() for one in torch.eye(6)], dim=1)
    own = [rows.tensor_split(groups, dim=1)[group] for group, rows in enumerate(dense.tensor_split(groups))]
    assert torch.equal(Kernels(layer).weight.flatten(1), torch.cat(own))


def test_a_hooked_layer_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        network[1].weight[:3] = 0.0
    network[1].register_forward_hook(lambda module, args, output: output + 1.0)
    result = shrink(network, IMAGES)
    assert result.report.unknown == ("1 (Conv2d)",)
    with torch.no_grad():
        assert torch.allclose(result.model(IMAGES), network(IMAGES), atol=1e-6)


class Decides(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_a_model_that_can_not_be_traced_is_told_its_line() -> None:
    with pytest.raises(TraceError, match=r"Sequential\.forward at .*test_shrinking_usable\.py:\d+: ") as caught:
        shrink(nn.Sequential(Decides()), IMAGES)
    assert "if" in (caught.value.hint or "")


def test_mistakes_are_told(masked: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"\[1, 1, 16, 16\]"):
        shrink(masked, torch.zeros(1, 1, 16, 16))
    with pytest.raises(UnknownNameError, match="'gahter'"):
        shrink(masked, IMAGES, additions="gahter")
    with pytest.raises(UnknownNameError, match="'drops'"):
        shrink(masked, IMAGES, constants="drops")
    for width in (8.0, True, 12, "8"):
        with pytest.raises(UserError, match="can not be aligned"):
            shrink(masked, IMAGES, align=width)  # type: ignore[arg-type]
    for given, words in (("net", "of type str"), (masked.state_dict(), "of type OrderedDict")):
        with pytest.raises(ModelError, match=words):
            shrink(given, IMAGES)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"conv\.weight is on the meta device"):
        shrink(copy.deepcopy(masked).to("meta"), IMAGES)
    broken = copy.deepcopy(masked)
    with torch.no_grad():
        broken.fc.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"fc\.weight"):
        shrink(broken, IMAGES)


def test_the_report_names_weights_that_are_tied_no_more() -> None:
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).eval()
    tied[2].weight = tied[0].weight
    with torch.no_grad():
        tied[0].weight[1] = 0.0
    report = shrink(tied, torch.zeros(1, 3, 4, 4)).report
    assert [note for note in report.notes if "0.weight, 2.weight" in note and "train apart" in note]


@pytest.mark.parametrize("name", ["graph", "_graph", "code", "_code", "meta", "class"])
def test_names_that_torch_fx_needs_are_refused(name: str) -> None:
    net = nn.Sequential()
    net.add_module(name, nn.Conv2d(3, 2, 1))
    with pytest.raises(ModelError, match=f"named {name}"):
        shrink(net, torch.zeros(1, 3, 4, 4))
