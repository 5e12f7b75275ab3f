"""The scripts of benchmarks/speed/ and benchmarks/papers/ as modules, for tests of their functions: see `load`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, folder: str = "speed") -> ModuleType:
    """The script of this name; like the scripts themselves it finds its neighbours.

    Packages that put folders of their own on the path (ONNX Runtime's quantiser does) have modules of the same names.
    """
    place = BENCHMARKS / folder
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "").parent != place:
        del sys.modules[name]
    return importlib.import_module(name)
