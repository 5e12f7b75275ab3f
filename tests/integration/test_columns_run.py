"""Column pruning from a matrix to a measured network, and by `edgeprune shrink`, as a user starts them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file

import edgeprune as ep
from edgeprune.cli import main
from edgeprune.models import resnet

NETS = """\
from edgeprune.models import resnet

def tiny(num_classes=10, in_channels=3):
    return resnet.build(num_classes, in_channels, depth=8)
"""
MATRIX = """\
name: columns
data: digits
models: [own_nets:tiny]
prune:
  - {method: psp, ratio: [0.75], seed: 0, options: {structure: column, epochs: 1}}
runtimes: [onnxruntime]
train: {epochs: 1}
finetune: {epochs: 1}
shrink: {columns: gather}
measure: {samples: 5, seconds: 0.02, launches: 2, group_seconds: 0.001, warmup_seconds: 0.02, warmup_max: 20}
"""


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_matrix_measures_networks_without_their_columns(tmp_path: Path) -> None:
    (tmp_path / "own_nets.py").write_text(NETS)
    (tmp_path / "m.yaml").write_text(MATRIX)
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", "run", "m.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=900,
        env=os.environ | {"EDGEPRUNE_CACHE": str(tmp_path / "cache")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cells, pairs = (rows(tmp_path / "results" / "columns" / name) for name in ("cells.csv", "pairs.csv"))
    by_variant = {cell["variant"]: cell for cell in cells}
    assert {cell["status"] for cell in cells} == {"ok"}
    masked, shrunk, dense = (by_variant[name] for name in ("masked", "shrunk", "dense"))
    assert masked["params"] == dense["params"]
    # what is left of the masked network is what the shrunk one holds, but for biases of layers that lost all columns
    assert int(shrunk["nonzero_params"]) <= int(masked["nonzero_params"])
    assert int(shrunk["params"]) < 1.1 * int(masked["nonzero_params"])
    assert masked["accuracy"] == shrunk["accuracy"]
    (pair,) = pairs
    assert float(pair["theoretical_speedup_filters"]) == pytest.approx(4.0)
    assert float(pair["theoretical_speedup_macs"]) == pytest.approx(int(dense["macs"]) / int(shrunk["macs"]))
    assert 2.0 < float(pair["theoretical_speedup_macs"]) < 5.0


def test_the_command_gathers_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_columns.py").write_text(NETS)
    net = resnet.build(10, 3, depth=8)
    random = torch.Generator().manual_seed(0)
    gone = 0
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels > 3:
            kept = torch.rand(layer.weight[:1].shape, generator=random) < 0.3
            kept[0, :, 1, 1] = True
            layer.weight.data *= kept
            gone += len(layer.weight) * int((~kept).sum())
    save_file(net.state_dict(), "masked.safetensors")
    words = ["shrink", "own_columns:tiny", "--weights", "masked.safetensors", "--input-shape", "3,8,8"]
    assert main([*words, "-o", "small.onnx", "--columns", "gather"]) == 0
    params = sum(one.numel() for one in ep.load_shrunk("small").parameters())
    assert params == sum(one.numel() for one in net.parameters()) - gone
    printed = capsys.readouterr().out
    assert "kernel columns gathered" in printed
    assert "Concat" in {node.op_type for node in onnx.load("small.onnx").graph.node}
    assert main([*words, "-o", "large.onnx", "--columns", "keep"]) == 0
    assert "kernel columns gathered" not in capsys.readouterr().out
    assert sum(one.numel() for one in ep.load_shrunk("large").parameters()) == params + gone
