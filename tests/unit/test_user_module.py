"""A user's own network: found from the current directory, and every failure told in one message."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.models import load

SOURCE = """
import torch
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())

def raises(width=4):
    return nn.Conv2d(1, "four", 3)

def leaves():
    raise SystemExit(3)

def number():
    return 7

CONSTANT = 3

class Net(nn.Module):
    def __init__(self):
        super().__init__()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets_t").mkdir()
    (tmp_path / "my_nets_t" / "__init__.py").touch()
    (tmp_path / "my_nets_t" / "small.py").write_text(SOURCE)
    (tmp_path / "my_broken_t.py").write_text("import torch\n\nvalue = 1 / 0\n")
    (tmp_path / "my_syntax_t.py").write_text("def build(:\n")
    (tmp_path / "my_needs_t.py").write_text("import not_there_at_all\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_builds_from_the_current_directory(here: Path):
    before = list(sys.path)
    model = load("my_nets_t.small:build", width=6)
    assert isinstance(model, nn.Sequential)
    assert model[0].out_channels == 6
    assert sys.path == before


def test_seed_repeats_the_weights(here: Path):
    first, second, other = (load("my_nets_t.small:build", seed=seed)[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("spec", "options", "parts"),
    [
        ("my_nets_t.small:raises", {}, ["my_nets_t.small:raises", "TypeError", "small.py:9"]),
        ("my_nets_t.small:build", {"depth": 3}, ["build(depth=3)", "TypeError", "depth", "small.py:5"]),
        ("my_nets_t.small:Net", {"depth": 3}, ["Net(depth=3)", "TypeError", "small.py:20"]),
        ("my_nets_t.small:leaves", {}, ["SystemExit", "small.py:12"]),
        ("my_nets_t.small:number", {}, ["number returned int"]),
        ("my_nets_t.small:CONSTANT", {}, ["CONSTANT", "small.py", "not a callable"]),
        ("my_nets_t.small:biuld", {}, ["small.py", "'biuld'"]),
        ("my_nets_t.smal:build", {}, ["no module named 'my_nets_t.smal'"]),
        ("my_absent_t:build", {}, ["no module named 'my_absent_t'"]),
        ("my_broken_t:build", {}, ["importing my_broken_t", "ZeroDivisionError", "my_broken_t.py:3"]),
        ("my_syntax_t:build", {}, ["SyntaxError", "my_syntax_t.py:1"]),
        ("my_needs_t:build", {}, ["not_there_at_all", "my_needs_t.py:1"]),
        ("no_colon", {}, ["no_colon", "package.module:callable"]),
        (":build", {}, ["package.module:callable"]),
    ],
)
def test_failures_say_what_and_where(here: Path, spec: str, options: dict, parts: list[str]):
    with pytest.raises(ModelError) as caught:
        load(spec, **options)
    for part in parts:
        assert part in caught.value.message
    assert caught.value.hint
    assert "Traceback" not in caught.value.message
    assert "\n" not in caught.value.message.split(": ", 1)[0]


def test_a_misspelt_callable_gets_the_nearest_name(here: Path):
    with pytest.raises(ModelError) as caught:
        load("my_nets_t.small:biuld")
    assert "did you mean build?" in caught.value.hint
