"""The int8 form of a network: calibrated with images of the training split, right so often on the test split.

Start with `build`. The accuracy is that of the int8 file in ONNX Runtime, the reference that accelerators are held to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import exporting
from edgeprune.matrix.stages import CALIBRATION_IMAGES, ONNX_FILE, REFERENCE_FILE

if TYPE_CHECKING:
    import torch

    from edgeprune.datasets import Dataset

ACCURACY_FILE = "int8.json"


def build(folder: Path, onnx_path: Path, input_path: Path, dataset: Dataset) -> None:
    """Write the int8 file, its answer to the network's input, and its accuracy.

    Raises:
        ExportError: the network cannot be quantised.
    """
    import onnxruntime
    import torch

    from edgeprune import training

    count = min(CALIBRATION_IMAGES, len(dataset.train))  # type: ignore[arg-type]
    places = np.linspace(0, len(dataset.train) - 1, count).round().astype(int)  # type: ignore[arg-type]
    images = torch.stack([dataset.train[int(place)][0] for place in places]).numpy()
    path = exporting.quantise(onnx_path, images, folder / ONNX_FILE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = np.fromfile(input_path, np.float32).reshape(1, *images.shape[1:])
    np.save(folder / REFERENCE_FILE, session.run(None, {"input": image})[0])
    accuracy = training.accuracy(_as_module(session), dataset.test, reads_files=dataset.reads_files)
    (folder / ACCURACY_FILE).write_text(json.dumps({"accuracy": accuracy, "calibration_images": count}))


def _as_module(session: Any) -> torch.nn.Module:
    """An ONNX Runtime session of one image at a time as a module of batches."""
    import torch

    class Session(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answers = [session.run(None, {"input": image[None].numpy()})[0] for image in images.cpu()]
            return torch.from_numpy(np.concatenate(answers))

    return Session()
