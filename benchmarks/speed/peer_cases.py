"""The networks of compile.md, dense and shrunk, as files: ONNX, an input, what ONNX Runtime answers to it.

Weights and statistics are random, as after training. A shrunk network has lost each filter by the toss of a coin, so
its widths are ragged. Start with `Case.files`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from masked_cases import masked, randomised
from shrinking_speed import Network

import edgeprune as ep
from edgeprune.matrix.cache import Cache, fingerprint, versions
from edgeprune.matrix.stages import INPUT_FILE, REFERENCE_FILE

ONNX_FILE = "network.onnx"
FORMS = ("dense", "shrunk")
RATIO = 0.5
"""Part of the filters that a shrunk network has lost."""


@dataclass(frozen=True)
class Case:
    """A network in one of its `FORMS`; images have so many channels."""

    network: Network
    form: str
    channels: int = 3

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    def files(self, cache: Cache) -> Path:
        """The folder with `ONNX_FILE`, `INPUT_FILE` (float32 [1, C, H, W]) and `REFERENCE_FILE` (float32 [1, K])."""
        here = Path(__file__).parent
        scripts = [(here / name).read_bytes() for name in ("peer_cases.py", "masked_cases.py", "shrinking_speed.py")]
        ingredients = {
            "network": [self.name, self.network.package, self.network.size, self.channels, self.form],
            "code": fingerprint("models", "shrinking", "exporting"),
            "script": hashlib.sha256(b"".join(scripts)).hexdigest(),
            "versions": versions("torch", "onnx", "onnxscript", "onnxruntime"),
        }
        return cache.make("benchmark-network", ingredients, self._write)

    def _write(self, folder: Path) -> None:
        side, generator = self.network.size, torch.Generator().manual_seed(0)
        image = torch.randn(1, self.channels, side, side, generator=generator)
        model = randomised(self.network)
        if self.form == "shrunk":
            model = ep.shrink(masked(model, RATIO, "A", image), image).model
        path = ep.export_onnx(model.eval(), image, folder / ONNX_FILE)
        image.numpy().tofile(folder / INPUT_FILE)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.save(folder / REFERENCE_FILE, answer)


_SMALL = (Network("resnet20", "edgeprune", 32), Network("resnet56", "edgeprune", 32))
_LARGE = tuple(
    Network(name, "torchvision") for name in ("resnet18", "resnet50", "mobilenet_v2", "vgg16_bn", "densenet121")
)
CASES = (
    *(Case(network, "dense") for network in (*_SMALL, *_LARGE)),
    *(Case(network, "shrunk") for network in (_SMALL[1], *_LARGE[:2])),
)
LENET5 = Case(Network("lenet5", "edgeprune", 28), "dense", 1)


def chosen(names: Sequence[str], forms: Sequence[str], cases: Sequence[Case] = CASES) -> list[Case]:
    """The cases of these networks and forms; all networks if none is named."""
    return [case for case in cases if case.form in forms and (not names or case.name in names)]
