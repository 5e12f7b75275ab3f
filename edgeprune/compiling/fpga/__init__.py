"""The int8 accelerator of `devices/fpga`: from an int8 ONNX network to its commands, and the simulated core.

Start with `network.compile_network`: `reading.py` finds the layers, `fusing.py` joins additions to them, `laying.py`
saves copies, `placing.py` says where tensors lie, `lowering.py` makes commands. `meaning.execute` says in numpy what
these have to give, `simulator.simulate` what the hardware makes of them. `running.Network` runs a compiled network,
host parts included.

Importing this package loads neither onnx nor numpy until a name that needs them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune.compiling.fpga.arrays import core_of, devices, target_of

if TYPE_CHECKING:
    from edgeprune.compiling.fpga.running import Figures, LayerFigures, Network, facts_of, simulator_version

__all__ = ["Figures", "LayerFigures", "Network", "core_of", "devices", "facts_of", "simulator_version", "target_of"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.running"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
