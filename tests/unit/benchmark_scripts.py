"""The scripts of benchmarks/speed/ and benchmarks/papers/ as modules, for tests of their functions: see `load`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, folder: str = "speed") -> ModuleType:
    """The script of this name; like the scripts themselves it finds its neighbours."""
    if str(BENCHMARKS / folder) not in sys.path:
        sys.path.append(str(BENCHMARKS / folder))
    return importlib.import_module(name)
