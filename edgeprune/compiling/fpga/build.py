"""The runtime `fpga`: a network's streams of commands, its packed weights, and the parts that the host computes.

`network.json` says in which order they run and where tensors lie in the core's memory. Start with `build`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeprune.compiling.artifact import Built
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.network import Compiled, Port, Region, compile_network
from edgeprune.compiling.fpga.qdq import read_graph

MODEL = "network.json"


def build(onnx_path: Path, folder: Path, core: Core, threads: int) -> Built:
    """Compile an int8 ONNX file (QDQ form) for a core.

    Raises:
        CompileError: it is no int8 network of one image, or a layer does not fit the core.
    """
    del threads  # there is one core
    compiled = compile_network(read_graph(onnx_path), core)
    steps = [
        _write_region(folder, number, step) if isinstance(step, Region) else _write_host(folder, number, step)
        for number, step in enumerate(compiled.steps)
    ]
    nodes = [{"name": name, "operator": operator} for name, operator in compiled.host_nodes]
    fields = {
        "core": asdict(core),
        "steps": steps,
        "host": {"nodes": nodes, "macs": compiled.host_macs},
        "nodes": compiled.nodes,
        "macs": compiled.macs,
    }
    (folder / MODEL).write_text(json.dumps(fields, indent=1) + "\n")
    regions = [step for step in compiled.steps if isinstance(step, Region)]
    return Built(
        MODEL,
        weights_bytes=sum(int(region.weights.size) for region in regions),
        arena_bytes=max(region.weights_at for region in regions),
        notes=notes(compiled),
    )


def notes(compiled: Compiled) -> tuple[str, ...]:
    """What the host computes, in a sentence; nothing where it only quantises and dequantises."""
    nodes = compiled.host_nodes
    if not nodes:
        return ()
    share = compiled.host_macs / compiled.macs if compiled.macs else 0.0
    names = ", ".join(f"{name} ({operator})" for name, operator in nodes[:8]) + (", ..." if len(nodes) > 8 else "")
    words = f"{len(nodes)} of {compiled.nodes} nodes, {100 * share:.1f} % of the MACs, are left to the host: {names}"
    return (words,)


def _write_host(folder: Path, number: int, step: Any) -> dict[str, Any]:
    name = f"host_{number}.onnx"
    (folder / name).write_bytes(step.model.SerializeToString(deterministic=True))
    return {"kind": "host", "file": name, "inputs": list(step.inputs), "outputs": list(step.outputs)}


def _write_region(folder: Path, number: int, region: Region) -> dict[str, Any]:
    commands, weights = f"core_{number}.commands", f"core_{number}.weights"
    (folder / commands).write_bytes(region.program.words().astype("<u4").tobytes())
    (folder / weights).write_bytes(region.weights.tobytes())
    return {
        "kind": "core",
        "commands": commands,
        "weights": weights,
        "weights_at": region.weights_at,
        "inputs": [_port(port) for port in region.inputs],
        "outputs": [_port(port) for port in region.outputs],
        "layers": [
            {
                "name": " + ".join(one.operation.nodes),
                "operator": one.operation.kind,
                "macs": one.operation.macs,
                "in_channels": one.operation.source.channels,
                "out_channels": one.operation.target.channels,
                "rows": one.operation.target.rows,
                "columns": one.operation.target.columns,
                "end": one.end,
            }
            for one in region.layers
        ],
    }


def _port(port: Port) -> dict[str, Any]:
    value = port.value
    return {
        "name": value.name,
        "channels": value.channels,
        "rows": value.rows,
        "columns": value.columns,
        "rank": value.rank,
        "address": port.address,
        "fold": None if port.fold is None else asdict(port.fold),
    }
