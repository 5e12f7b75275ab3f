"""The examples in docstrings of the stages on the laptop run and print what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "counting.macs",
    "counting.promises",
    "datasets.registry",
    "exporting.onnx_file",
    "exporting.parity",
    "models.registry",
    "models.user_module",
    "pruning.criteria",
    "pruning.masks",
    "pruning.select",
    "training.checkpoint",
    "training.loop",
    "training.schedule",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    result = doctest.testmod(importlib.import_module(f"edgeprune.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
