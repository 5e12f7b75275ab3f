"""The scripts of benchmarks/speed/ as modules, for tests of their functions: start with `load`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"


def load(name: str) -> ModuleType:
    """The script of this name; like the scripts themselves it finds its neighbours."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
