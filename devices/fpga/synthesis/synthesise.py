"""What the core takes of a chip, and how fast it is there, by open tools: `reports.json` beside this file.

    make synthesis

fetches the tools from PyPI, in the versions that the report was made with, and runs this. Start with `main`. Yosys maps
the core to Xilinx 7 and to Lattice ECP5; nextpnr places and routes the core of N = 8 on an ECP5-85k, all in 15 minutes
and more. The report names the hardware by a digest of its code, so that a report of another state can be told. Needs
Python 3.9, and nothing of edgeprune.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = (8, 16)
ROUTED = 8
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")
GOAL_MHZ = 100
SYNTHESIS = {"xc7": "synth_xilinx -family xc7 -flatten -top {top}", "ecp5": "synth_ecp5 -top {top} -json {netlist}"}
# Cells of a family by what a data sheet counts, and how much of it one of them is: a carry of ECP5 takes two LUTs, a
# distributed memory as many as it has bits for, a shift register of Xilinx one.
CELLS: dict[str, dict[str, dict[str, float]]] = {
    "xc7": {
        "LUT": {
            **{f"LUT{k}": 1 for k in range(1, 7)},
            "INV": 0,
            "SRL16E": 1,
            "RAM32M": 4,
            "RAM64M": 4,
            "RAM32X1D": 2,
            "RAM64X1D": 2,
        },
        "FF": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
        "DSP": {"DSP48E1": 1},
        "BRAM": {"RAMB36E1": 1, "RAMB18E1": 0.5},
    },
    "ecp5": {
        "LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
        "FF": {"TRELLIS_FF": 1},
        "DSP": {"MULT18X18D": 1},
        "BRAM": {"DP16KD": 1},
    },
}


def sources() -> list[Path]:
    """The core's files, the package of types first."""
    first = HERE.parent / "rtl" / "core_types.sv"
    files = {path for path in first.parent.glob("*.sv") if not path.name.startswith("axi_")}
    return [first, *sorted(files - {first})]


def digest(paths: Sequence[Path]) -> str:
    """A name for the code of some files, whatever its comments and spaces are."""
    code = [re.sub(r"//.*|/\*.*?\*/", "", path.read_text(encoding="utf-8")) for path in paths]
    return hashlib.sha256("\0".join(" ".join(part.split()) for part in code).encode()).hexdigest()[:16]


def used(family: str, cells: Mapping[str, int]) -> dict[str, float]:
    """LUT, FF, DSP and BRAM (36 kbit for Xilinx 7, 18 kbit for ECP5) of a netlist's cells."""
    return {
        kind: sum(share * cells.get(name, 0) for name, share in names.items()) for kind, names in CELLS[family].items()
    }


def tool(name: str) -> list[str]:
    """The command of a tool: the program itself, or what PyPI's yowasp packages call it."""
    for found in (shutil.which(f"yowasp-{name}"), shutil.which(name)):
        if found:
            return [found]
    raise SystemExit(f"{name} is not here: python -m pip install yowasp-{name}")


def run(words: Sequence[str], folder: Path) -> str:
    """Run a tool in a folder; what it says."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} failed (status {done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def synthesise(folder: Path, family: str, n: int, top: str) -> dict[str, int]:
    """Cells by type; for ECP5 the netlist is left as `<top>.json`."""
    files = [*sources(), HERE / "pins.sv"]
    for path in files:
        shutil.copy(path, folder)
    steps = [
        "read_verilog -sv " + " ".join(path.name for path in files),
        f"chparam -set N {n} {top}",
        SYNTHESIS[family].format(top=top, netlist=f"{top}.json"),
        "tee -q -o cells.json stat -json",
    ]
    run([*tool("yosys"), "-q", "-p", "; ".join(steps)], folder)
    found = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
    return {name: int(count) for name, count in sorted(found.items())}


def route(folder: Path) -> None:
    """Place and route the core between the shift registers of `pins.sv`; the report is left as `routed.json`."""
    synthesise(folder, "ecp5", ROUTED, "pins")
    words = [*tool("nextpnr-ecp5"), *DEVICE, "--json", "pins.json", "--freq", str(GOAL_MHZ), "--report", "routed.json"]
    run([*words, "--lpf-allow-unconstrained", "--timing-allow-fail"], folder)


def routed(folder: Path) -> dict[str, object]:
    """The clock that the routed core may have, its slowest path, and what it uses."""
    report = json.loads((folder / "routed.json").read_text())
    [clock] = report["fmax"].values()
    [path] = [path for path in report["critical_paths"] if path["from"] == path["to"] and "async" not in path["from"]]
    steps, parts = path["path"], report["utilization"]
    return {
        "n": ROUTED, "device": "LFE5U-85F", "speed_grade": 6, "fmax_mhz": round(clock["achieved"], 2),
        "goal_mhz": GOAL_MHZ, "slowest_from": steps[0]["from"]["cell"], "slowest_to": steps[-1]["to"]["cell"],
        "slowest_logic_ns": round(sum(step["delay"] for step in steps if step["type"] != "routing"), 2),
        "slowest_routing_ns": round(sum(step["delay"] for step in steps if step["type"] == "routing"), 2),
        "used": {name: [part["used"], part["available"]] for name, part in parts.items() if part["used"]},
    }  # fmt: skip


def table(report: Mapping[str, Any]) -> str:
    """What the core takes, as Markdown."""
    names = {"xc7": "Xilinx 7", "ecp5": "ECP5"}
    lines = ["| N | chip | LUT | FF | multipliers | block RAM |", "| --- | --- | --- | --- | --- | --- |"]
    for row in report["cores"]:
        figures = " | ".join(f"{row[kind]:,g}" for kind in ("LUT", "FF", "DSP", "BRAM"))
        lines.append(f"| {row['n']} | {names[row['family']]} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "reports.json")
    parser.add_argument("--no-route", action="store_true", help="keep the place and route of the file that is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report: dict[str, object] = {"hardware": digest(sources())}
        version = run([*tool("yosys"), "-V"], folder)
        report["yosys"] = version.split(",")[0].rstrip(") \n") + ")"  # without the folders that it was built in
        cores: list[dict[str, object]] = []
        report["cores"] = cores
        for n in SIZES:
            for family in SYNTHESIS:
                cells = synthesise(folder, family, n, "core")
                row = {"n": n, "family": family, **used(family, cells), "cells": cells}
                cores.append(row)
                print(json.dumps(row), file=sys.stderr)
        if args.no_route:
            before = json.loads(args.out.read_text())
            report["nextpnr"], report["routed"] = before["nextpnr"], before["routed"]
        else:
            report["nextpnr"] = run([*tool("nextpnr-ecp5"), "--version"], folder).strip()
            route(folder)
            report["routed"] = {"hardware": report["hardware"], **routed(folder)}
    print(table(report))
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
