"""A shrunk network is saved as data and loaded without code: the same numbers and names; no file runs code."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from masked_networks import RandomNetwork, SmallResNet, lenet, mask, mask_randomly
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import edgeprune as ep
from edgeprune.errors import ModelError, UserError, WeightsError
from edgeprune.shrinking import load_shrunk, shrink
from edgeprune.shrinking.notation import functions
from tests.unit import outside_networks

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Many(nn.Module):
    """Layers and calls of many kinds, decided by a size, with a bare parameter, a buffer and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding="same", padding_mode="circular")
        self.norms = nn.ModuleList([nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.LayerNorm(16)])
        self.acts = nn.ModuleList([nn.PReLU(8), nn.Hardtanh(-2.0, 2.0), nn.Softplus(2), nn.LeakyReLU(0.2)])
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)
        self.pool = nn.AdaptiveMaxPool2d((None, 4))
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.register_buffer("shift", torch.rand(1, 8, 1, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if x.shape[2] > 4:
            x = x[:, :, ::1, 1:]
            x = F.pad(x, (1, 0), value=float("-inf")).clamp(min=-3.0)
        x = self.conv(x)
        for norm in self.norms:
            x = norm(x)
        for act in self.acts:
            x = act(x)
        x = self.pool(self.up(x)) * self.scale + self.shift
        a, b = x.chunk(2, 1)
        x = torch.cat([b.softmax(1), a], 1)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return {"maps": x, "classes": self.fc(x.mean((2, 3)))}


def saved(masked: nn.Module, images: torch.Tensor, folder: Path) -> tuple[nn.Module, Path]:
    result = shrink(masked, images)
    files = result.save(folder / "net")
    assert files.needs_code == ()
    return result.model, folder / "net"


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "projection": lambda: (mask(SmallResNet(2), 0.5, seed=0, beta=True), IMAGES),
    "pad": lambda: (mask(SmallResNet(1, 8, "pad"), 0.5, seed=1, beta=True), IMAGES),
    "lenet": lambda: (mask(lenet(), 0.5, seed=0, beta=True), torch.randn(1, 1, 28, 28)),
    "many": lambda: (mask(Many(), 0.3, seed=0, beta=True), IMAGES),
}
NETWORKS |= {
    f"random {seed}": lambda seed=seed: (  # type: ignore[misc]
        (net := mask_randomly(RandomNetwork(seed), seed)),
        torch.randn(2, net.inputs, net.size, net.size).double(),
    )
    for seed in range(8)
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_is_the_same_network_bit_for_bit(name: str, tmp_path: Path) -> None:
    masked, images = NETWORKS[name]()
    model, path = saved(masked, images, tmp_path)
    loaded = load_shrunk(path)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert type(loaded).__name__ == type(model).__name__
    assert not loaded.training
    with torch.no_grad():
        for one, other in zip(_leaves(loaded(images)), _leaves(model(images)), strict=True):
            assert torch.equal(one, other)
    settings = {name: module.extra_repr() for name, module in model.named_modules()}
    assert {name: module.extra_repr() for name, module in loaded.named_modules()} == settings


def _leaves(output: Any) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(output)


def test_needs_neither_the_code_nor_pickle(tmp_path: Path) -> None:
    masked, images = NETWORKS["projection"]()
    model, path = saved(masked, images, tmp_path)
    save_file({"images": images, "expected": model(images).detach()}, tmp_path / "io.safetensors")
    script = (
        "import pickle, sys, torch\n"
        "from safetensors.torch import load_file\n"
        "import edgeprune as ep\n"
        "torch.set_num_threads(1)\n"
        "def refuse(*a, **k): raise AssertionError('pickle')\n"
        "torch.load = pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        "model, io = ep.load_shrunk(sys.argv[1]), load_file(sys.argv[2])\n"
        "with torch.no_grad(): assert torch.equal(model(io['images']), io['expected'])\n"
        "assert not [name for name in sys.modules if 'masked_networks' in name]\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "io.safetensors")], check=True, timeout=120)


def test_trains_and_counts_and_shrinks_again(tmp_path: Path) -> None:
    model, path = saved(*NETWORKS["projection"](), tmp_path)
    loaded = load_shrunk(path.with_suffix(".json")).train()
    before = copy.deepcopy(loaded.state_dict())
    torch.optim.SGD(loaded.parameters(), lr=0.1).zero_grad()
    F.cross_entropy(loaded(IMAGES), torch.tensor([1, 2])).backward()
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    for name, parameter in loaded.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    again = shrink(load_shrunk(path.with_suffix(".safetensors")), IMAGES)
    assert again.report.params_after == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_exports_to_onnx(dynamo: bool, tmp_path: Path) -> None:
    model, path = saved(*NETWORKS["projection"](), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(load_shrunk(path), (IMAGES,), str(tmp_path / "a.onnx"), dynamo=dynamo, external_data=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    with torch.no_grad():
        expected = model(IMAGES)
    assert torch.allclose(torch.from_numpy(actual), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_tied_and_frozen_parameters_stay_so(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1))
    network[4].weight = network[2].weight
    network[0].bias.requires_grad_(False)
    model = torch.fx.symbolic_trace(network).eval()
    report = shrink(network, IMAGES).report
    ep.shrinking.Shrunk(model, report).save(tmp_path / "tied")
    loaded = load_shrunk(tmp_path / "tied")
    assert loaded.get_parameter("4.weight") is loaded.get_parameter("2.weight")
    assert [name for name, p in loaded.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert "4.weight" not in load_file(tmp_path / "tied.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))


def test_the_description_is_written_for_people_too(tmp_path: Path) -> None:
    _, path = saved(*NETWORKS["projection"](), tmp_path)
    plan = json.loads(path.with_suffix(".json").read_text())
    assert plan["schema"] == 1
    assert plan["versions"] == {"edgeprune": ep.__version__, "torch": torch.__version__}
    assert plan["modules"]["conv"]["class"] == "torch.nn.Conv2d"
    assert plan["modules"]["conv"]["options"]["kernel_size"] == {"tuple": [3, 3]}
    assert {row["layer"] for row in plan["report"]["layers"]} >= {"conv", "bn", "fc"}


@pytest.mark.parametrize("name", ["efficientnet_b0", "vit_tiny_patch16_224"])
def test_networks_from_outside_need_no_code(name: str, tmp_path: Path) -> None:
    size = outside_networks.NETWORKS[name].size
    masked, images = mask(outside_networks.build(name), 0.5, seed=0, beta=True), torch.randn(1, 3, *size)
    model, path = saved(masked, images, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_shrunk(path)(images), model(images))


class OwnLeaf(nn.Module):
    __module__ = "torch.nn.own"  # taken whole by torch.fx

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_modules_of_the_users_own_are_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), OwnLeaf())
    result = shrink(network, IMAGES)
    with pytest.warns(UserWarning, match=r"without your own code, for 1 \(torch\.nn\.own\.OwnLeaf\)"):
        files = result.save(tmp_path / "own")
    assert files.needs_code == ("1 (torch.nn.own.OwnLeaf)",)
    result.model.load_state_dict(load_file(files.state))
    with pytest.raises(ModelError, match=r"needs your own code, for 1 \(torch\.nn\.own\.OwnLeaf\)"):
        load_shrunk(tmp_path / "own")


class Routed(nn.Module):
    """Layers under a name with dashes, and a method that torch does not list."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.ways = name, nn.ModuleDict({name: nn.Conv2d(3, 8, 3), "last": nn.Conv2d(4, 2, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.ways[self.name](x)
        return self.ways["last"](x.unflatten(1, (2, 4)).sum(1))


@pytest.mark.parametrize(("name", "loads"), [("to-depth", True), ("to depth", False)])
def test_what_is_saved_without_a_warning_loads(name: str, loads: bool, tmp_path: Path) -> None:
    shrunk = shrink(mask(Routed(name), 0.5, 0, beta=True), IMAGES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        files = shrunk.save(tmp_path / "net")
    assert bool(files.needs_code) == bool(said) == (not loads)
    if loads:
        assert torch.equal(load_shrunk(tmp_path / "net")(IMAGES), shrunk.model(IMAGES))
    else:
        with pytest.raises(ModelError, match="your own code"):
            load_shrunk(tmp_path / "net")


def forge(plan: dict[str, Any], what: str) -> None:
    call = next(node for node in plan["graph"] if node["op"] == "call_function")
    module = next(iter(plan["modules"].values()))
    changes: dict[str, Callable[[], Any]] = {
        "os.system": lambda: call.update(target="os.system", args=["true"]),
        "posix.system": lambda: call.update(target="posix.system", args=["true"]),
        "builtins.eval": lambda: call.update(target="builtins.eval", args=["1"]),
        "torch.load": lambda: call.update(target="torch.load", args=["x.pt"]),
        "torch.hub.load": lambda: call.update(target="torch.hub.load", args=["x", "y"]),
        "a writing operator": lambda: call.update(target="aten::add_.Tensor"),
        "a file's operator": lambda: call.update(target="aten::from_file", args=["x"]),
        "a getattr": lambda: call.update(target="builtins.getattr", args=[call["args"][0], "__class__"]),
        "a private method": lambda: call.update(op="call_method", target="__reduce__"),
        "code in a name": lambda: call.update(name="x = __import__('os')"),
        "code in a target": lambda: call.update(op="get_attr", target="a)\n    __import__('os')", args=[]),
        "code in a keyword": lambda: call.update(kwargs={"a=__import__('os'), b": 1}),
        "code in an input": lambda: plan["graph"][0].update(target="x, y=__import__('os')"),
        "another class": lambda: module.update({"class": "subprocess.Popen"}),
        "a hidden class": lambda: module.update({"class": "torch.nn.modules.module._WrappedHook"}),
        "another option": lambda: module["options"].update(hook=1),
        "a strange argument": lambda: call.update(args=[{"pickle": "gASV"}]),
        "code in the class": lambda: plan.update(network="A: pass\nimport os"),
    }
    changes[what]()


FORGED = (
    "os.system|posix.system|builtins.eval|torch.load|torch.hub.load|a writing operator|a file's operator|a getattr|"
    "a private method|code in a name|code in a target|code in a keyword|code in an input|another class|a hidden class|"
    "another option|a strange argument|code in the class"
).split("|")


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_description_is_refused(what: str, tmp_path: Path) -> None:
    _, path = saved(*NETWORKS["pad"](), tmp_path)
    plan = json.loads(path.with_suffix(".json").read_text())
    forge(plan, what)
    path.with_suffix(".json").write_text(json.dumps(plan))
    with pytest.raises(ModelError, match=r"the description|is no name of a class") as caught:
        load_shrunk(path)
    assert caught.value.hint


def test_functions_are_torchs_own_and_none_reads_files() -> None:
    homes = {name.rpartition(".")[0] for name in functions()}
    assert homes == {"torch", "torch.nn.functional", "torch.special", "operator", "math", "builtins"}
    for name in ("torch.load", "torch.save", "torch.compile", "torch.from_file", "operator.call", "builtins.eval"):
        assert name not in functions()
    assert functions()["torch.cat"] is torch.cat
    assert functions()["torch.nn.functional.hardswish"] is F.hardswish


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    _, path = saved(*NETWORKS["pad"](), tmp_path)
    plan, state = path.with_suffix(".json").read_text(), load_file(path.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match="no description"):
        load_shrunk(tmp_path / "other")
    for text, words in (("{", "is no JSON"), ("[]", "describes no"), (plan.replace('"schema": 1', '"schema": 9'), "9")):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(ModelError, match=words):
            load_shrunk(path)
    path.with_suffix(".json").write_text(plan)
    for change, words in (
        ({key: value for key, value in state.items() if key != "fc.weight"}, r"fc.*weight"),
        (state | {"fc.weight": torch.zeros(1, 1)}, "fc"),
        (state | {"more": torch.zeros(1)}, "more"),
    ):
        save_file(change, path.with_suffix(".safetensors"))
        with pytest.raises(WeightsError, match=words):
            load_shrunk(path)
    path.with_suffix(".safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="not a whole"):
        load_shrunk(path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(WeightsError, match="no state"):
        load_shrunk(path)


def test_any_file_of_the_name_leads_to_the_network(tmp_path: Path) -> None:
    _, path = saved(*NETWORKS["pad"](), tmp_path)
    for suffix in (".json", ".safetensors", ".pt", ".onnx"):
        assert isinstance(load_shrunk(path.with_suffix(suffix)), torch.fx.GraphModule)
    with pytest.raises(UserError, match="no device 'gpu' is usable here"):
        load_shrunk(path, device="gpu")
    for folder in ("", f"{tmp_path}/"):
        with pytest.raises(UserError, match="names a folder"):
            load_shrunk(folder)


@pytest.mark.parametrize("key", ["tied", "frozen", "modules", "tensors", "graph"])
def test_a_description_without_a_part_is_refused(key: str, tmp_path: Path) -> None:
    _, path = saved(*NETWORKS["pad"](), tmp_path)
    plan = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(plan | {key: None}))
    with pytest.raises(ModelError, match="is no whole description"):
        load_shrunk(path)
