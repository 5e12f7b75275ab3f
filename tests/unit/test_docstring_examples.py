"""Every example in a docstring of edgeprune runs and prints what it says; `+SKIP` inside one is the only way out."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import edgeprune

PACKAGE = Path(edgeprune.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_examples(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    found = sum(len(test.examples) for test in doctest.DocTestFinder().find(module))
    # an example that doctest does not see would never run
    assert found == len(re.findall(r"^\s*>>> ", path.read_text(), flags=re.MULTILINE))
    assert doctest.testmod(module).failed == 0
