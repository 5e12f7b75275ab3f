"""Checkpoints: what is written comes back, what does not fit is told and changes nothing."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import StorageError, WeightsError
from edgeprune.training import load_weights, save_checkpoint


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, 3))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_round_trip_with_facts_and_equal_bytes(tmp_path: Path):
    model, other = net(), net()
    facts = {"seed": 3, "accuracy": 0.98, "schedule": {"epochs": 2}, "z": None}
    path = save_checkpoint(tmp_path / "deep" / "a.safetensors", model, facts)
    again = save_checkpoint(tmp_path / "b.safetensors", model, dict(reversed(facts.items())))
    assert load_weights(other, path) == facts
    assert same(model, other)
    assert path.read_bytes() == again.read_bytes()
    assert [one.name for one in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files(tmp_path: Path, wrap: str | None, prefix: str):
    model, other = net(), net()
    state = {prefix + name: one for name, one in model.state_dict().items()}
    torch.save({wrap: state, "epoch": 4} if wrap else state, tmp_path / "a.pth")
    assert load_weights(other, tmp_path / "a.pth") == {}
    assert same(model, other)


def test_tied_weights(tmp_path: Path):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    path = save_checkpoint(tmp_path / "a.safetensors", model)
    other = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    load_weights(other, path)
    assert same(model, other)


class Trap:
    """A pickled object whose reading would run code."""

    def __reduce__(self):
        return (os.mkdir, ("pwned",))


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: net(5).state_dict(), ["0.weight is [5, 1, 3, 3] in the file and [4, 1, 3, 3] in the model", "2 more"]),
        (lambda: {k: v for k, v in net().state_dict().items() if k != "3.bias"}, ["missing 3.bias [3]"]),
        (lambda: {**net().state_dict(), "head.weight": torch.zeros(2, 2)}, ["unexpected head.weight [2, 2]"]),
        (lambda: {**net().state_dict(), "3.bias": torch.tensor([0.0, float("nan"), 1.0])}, ["NaN", "3.bias [3]"]),
        (lambda: {**net().state_dict(), "3.bias": torch.tensor([0.0, float("inf"), 1.0])}, ["infinity", "3.bias"]),
        (lambda: [1, 2], ["no state dict"]),
        (lambda: {"a": Trap()}, ["plain weights: it holds more than tensors"]),
        (net, ["it holds more than tensors (a whole module?)"]),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_changes(tmp_path: Path, monkeypatch, make, parts: list[str]):
    monkeypatch.chdir(tmp_path)
    torch.save(make(), tmp_path / "a.pt")
    model = net()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tmp_path / "a.pt")
    for part in ["a.pt", *parts]:
        assert part in caught.value.message
    assert caught.value.hint
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert not (tmp_path / "pwned").exists()


def test_missing_and_torn_files(tmp_path: Path):
    with pytest.raises(WeightsError, match="no weights file"):
        load_weights(net(), tmp_path / "absent.safetensors")
    path = save_checkpoint(tmp_path / "a.safetensors", net())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_weights(net(), path)
    torch.save(net().state_dict(), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:300])
    with pytest.raises(WeightsError, match=r"b\.pt cannot be read as plain weights: it is not a whole torch file$"):
        load_weights(net(), tmp_path / "b.pt")
    for content in (b"", b"\x80", b"no torch file at all", b"\x80\x02}q"):
        (tmp_path / "c.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"it is not a whole torch file$"):
            load_weights(net(), tmp_path / "c.pt")


def test_a_place_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"a\.safetensors: ") as caught:
        save_checkpoint(tmp_path / "file" / "a.safetensors", net())
    assert caught.value.hint
